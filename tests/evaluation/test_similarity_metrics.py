import numpy as np
import pytest
from scipy.stats import spearmanr

from hf_matryoshka.evaluation.bootstrap import bootstrap_mean
from hf_matryoshka.evaluation.metrics import prefix_overlap, spearman, spearman_influence


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(0)
    gold = np.round(rng.uniform(0, 5, size=400) * 4) / 4
    return gold + rng.normal(scale=1.0, size=400), gold


def test_spearman_equals_scipy_with_ties(pairs):
    assert spearman(*pairs) == pytest.approx(spearmanr(*pairs).statistic)


def test_influence_has_the_correlation_as_mean_and_its_bootstrap_error_as_spread(pairs):
    a, b = pairs
    values = spearman_influence(a, b)
    mean, low, high = bootstrap_mean(values)
    rng = np.random.default_rng(1)
    samples = [rng.integers(400, size=400) for _ in range(500)]
    truth = np.quantile([spearmanr(a[rows], b[rows]).statistic for rows in samples], [0.025, 0.975])
    assert mean == pytest.approx(spearman(a, b))
    assert high - low == pytest.approx(truth[1] - truth[0], rel=0.12)


def test_undefined_correlations_are_refused():
    with pytest.raises(ValueError, match="constant"):
        spearman(np.ones(5), np.arange(5))
    with pytest.raises(ValueError, match="equally long"):
        spearman(np.arange(4), np.arange(5))


def test_prefix_overlap_counts_kept_neighbours():
    angles = np.array([0.0, 0.1, 0.3, 1.5, 1.7, 2.0])
    full = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert prefix_overlap(full, full, k=2) == 1
    # Swapping two items that neighbour nobody in common loses neighbours that can be counted by hand.
    swapped = full[[3, 1, 2, 0, 4, 5]]
    expected = []
    for row in range(6):
        near = [set(np.argsort(-(x @ x[row]) + 9 * (np.arange(6) == row))[:2]) for x in (full, swapped)]
        expected.append(len(near[0] & near[1]) / 2)
    assert prefix_overlap(full, swapped, k=2) == pytest.approx(np.mean(expected))
    assert prefix_overlap(full, swapped, k=2) < 1


def test_prefix_overlap_refuses_other_items_and_too_many_neighbours():
    vectors = np.eye(3, dtype=np.float32)
    with pytest.raises(ValueError, match="3 and 2 rows"):
        prefix_overlap(vectors, vectors[:2], k=1)
    with pytest.raises(ValueError, match="k must be from 1 to 2"):
        prefix_overlap(vectors, vectors, k=3)
