"""Agreement of similarities: with gold scores, and of a prefix with the full width."""

import numpy as np
from scipy.stats import rankdata


def _check_pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2:
        raise ValueError(
            f"two equally long lists of at least 2 values are needed, but the shapes are {a.shape}, {b.shape}"
        )
    if a.min() == a.max() or b.min() == b.max():
        raise ValueError("the rank correlation of constant values is not defined")
    return a, b


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation; ties get their mean rank.

    Args:
        a (`np.ndarray` of shape `(n,)`): For example cosine similarities.
        b (`np.ndarray` of shape `(n,)`): For example gold scores.

    Returns:
        `float`: Between -1 and 1.

    Raises:
        ValueError: If the lengths differ or one of them is constant.
    """
    a, b = _check_pair(a, b)
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def spearman_influence(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """One value for each pair, whose mean is Spearman's correlation and whose spread is its sampling error.

    With it a correlation is bootstrapped, and two correlations on the same pairs are compared, like any mean. The
    values are the correlation plus the empirical influence function of Spearman's estimator (Croux and Dehon, 2010,
    Influence functions of the Spearman and Kendall correlation measures).

    Args:
        a (`np.ndarray` of shape `(n,)`): For example cosine similarities.
        b (`np.ndarray` of shape `(n,)`): For example gold scores.

    Returns:
        `np.ndarray` of shape `(n,)`, float64.

    Raises:
        ValueError: If the lengths differ or one of them is constant.
    """
    a, b = _check_pair(a, b)
    # Mid-distribution functions, so that ties count half.
    f, g = (rankdata(a) - 0.5) / len(a), (rankdata(b) - 0.5) / len(b)
    influence = f * g + _mean_above(f, g) + _mean_above(g, f)
    influence -= influence.mean()
    # The population formula has 12 = 1 / variance of a uniform; ties make the variance of the ranks smaller.
    return spearman(a, b) + influence / np.sqrt(f.var() * g.var())


def _mean_above(keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """For each element the mean over all elements of `values` where `keys` is larger (equal counts half)."""
    order = np.argsort(keys, kind="stable")
    sums = np.concatenate([[0.0], np.cumsum(values[order])])
    left = np.searchsorted(keys[order], keys, side="left")
    right = np.searchsorted(keys[order], keys, side="right")
    return (sums[-1] - (sums[left] + sums[right]) / 2) / len(keys)


def prefix_overlap(full: np.ndarray, prefix: np.ndarray, k: int = 10) -> float:
    """Share of each vector's `k` nearest neighbours at full width that are still its neighbours at a smaller width.

    Args:
        full (`np.ndarray` of shape `(n, dim)`): Full-width vectors.
        prefix (`np.ndarray` of shape `(n, smaller_dim)`): The same items at a smaller width.
        k (`int`, *optional*, defaults to 10): Number of neighbours, by cosine, without the item itself.

    Returns:
        `float`: Mean share, between 0 and 1.

    Raises:
        ValueError: If the numbers of vectors differ or there are not more than `k` of them.
    """
    if len(full) != len(prefix):
        raise ValueError(f"full and prefix must hold the same items, but have {len(full)} and {len(prefix)} rows")
    if not 1 <= k < len(full):
        raise ValueError(f"k must be from 1 to {len(full) - 1} for {len(full)} vectors, but is {k}")
    # Imported here so that curves and tables can be read without loading torch.
    from ...data.neighbours import nearest_neighbours

    expected, _ = nearest_neighbours(full, full, k, exclude_self=True)
    found, _ = nearest_neighbours(prefix, prefix, k, exclude_self=True)
    kept = sum(len(np.intersect1d(a, b)) for a, b in zip(expected, found, strict=True))
    return kept / (k * len(full))
