import numpy as np
import pytest

from hf_matryoshka.evaluation.bootstrap import bootstrap_mean, paired_bootstrap


def test_interval_has_the_normal_width_and_repeats():
    values = np.random.default_rng(0).normal(loc=0.5, size=500)
    mean, low, high = bootstrap_mean(values)
    assert mean == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(500), rel=0.06)
    assert low < mean < high
    assert bootstrap_mean(values) == (mean, low, high)
    assert bootstrap_mean(values, seed=1) != (mean, low, high)


def test_confidence_widens_the_interval():
    values = np.arange(50.0)
    _, low, high = bootstrap_mean(values, confidence=0.99)
    _, inner_low, inner_high = bootstrap_mean(values, confidence=0.8)
    assert low < inner_low < inner_high < high


def test_pairing_finds_what_two_separate_intervals_hide():
    rng = np.random.default_rng(0)
    hard = rng.uniform(size=200)
    a, b = hard + 0.02 + 0.01 * rng.normal(size=200), hard
    difference, low, high = paired_bootstrap(a, b)
    assert difference == pytest.approx(0.02, abs=0.003)
    assert low > 0
    assert bootstrap_mean(a)[1] < bootstrap_mean(b)[2]
    assert paired_bootstrap(b, a)[2] < 0


def test_bad_values_are_named():
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_mean(np.array([]))
    with pytest.raises(ValueError, match="value 1 of the bootstrap is not finite"):
        bootstrap_mean(np.array([0.0, np.nan]))
    with pytest.raises(ValueError, match="same queries, but there are 3 and 2"):
        paired_bootstrap(np.zeros(3), np.zeros(2))
