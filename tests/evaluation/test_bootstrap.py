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


def test_weights_stand_for_rows_of_as_many_values():
    rng = np.random.default_rng(0)
    weights = rng.integers(1, 20, size=400)
    rows = [rng.normal(loc=0.2, size=weight) for weight in weights]
    values = np.array([row.mean() for row in rows])
    mean, low, high = bootstrap_mean(values, weights=weights)
    every = np.concatenate(rows)
    assert mean == pytest.approx(every.mean())
    assert high - low == pytest.approx(2 * 1.96 * every.std() / np.sqrt(len(every)), rel=0.1)
    assert bootstrap_mean(values, weights=np.full(400, 7)) == pytest.approx(bootstrap_mean(values))
    # A ratio: where all values are equal, what is drawn changes nothing.
    assert bootstrap_mean(np.full(5, 0.3), weights=[1, 2, 3, 4, 50]) == pytest.approx((0.3, 0.3, 0.3))
    assert paired_bootstrap(values, values - 0.1, weights=weights) == pytest.approx((0.1, 0.1, 0.1))
    for bad in ([1.0], np.zeros(400)):
        with pytest.raises(ValueError, match="400 values need as many positive weights"):
            bootstrap_mean(values, weights=bad)
