"""Percentile bootstrap (Efron, 1979) of means over queries or rows, and of paired differences."""

from collections.abc import Iterator

import numpy as np


def bootstrap_mean(
    values: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    weights: np.ndarray | None = None,
) -> tuple[float, float, float]:
    """Mean with its bootstrap interval.

    Args:
        values (`np.ndarray` of shape `(n,)`): One value a query (or pair, or example).
        resamples (`int`, *optional*, defaults to 2000): Number of bootstrap samples.
        seed (`int`, *optional*, defaults to 0): Seed; equal seeds and lengths give equal samples.
        confidence (`float`, *optional*, defaults to 0.95): Coverage of the interval.
        weights (`np.ndarray` of shape `(n,)`, *optional*): What each value stands for, such as the tokens of a row of
            which it is the mean. The weighted mean is taken, also of each resample: a row is drawn with its tokens.

    Returns:
        `tuple[float, float, float]`: Mean, lower and upper end.

    Raises:
        ValueError: If there are no values, one is not finite, or there is not a positive weight for each.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"a bootstrap needs a list of at least one value, but the shape is {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"value {int(np.flatnonzero(~np.isfinite(values))[0])} of the bootstrap is not finite")
    if weights is None:
        means = np.array([counts @ values / len(values) for counts in resample_counts(len(values), resamples, seed)])
        return float(values.mean()), *percentile_interval(means, confidence)
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != values.shape or not (weights > 0).all():
        raise ValueError(f"{len(values)} values need as many positive weights, but there are {len(weights)}")
    total = weights * values
    means = np.array([counts @ total / (counts @ weights) for counts in resample_counts(len(values), resamples, seed)])
    return float(total.sum() / weights.sum()), *percentile_interval(means, confidence)


def resample_counts(count: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of `count` values is in each bootstrap sample."""
    rng = np.random.default_rng(seed)
    # One resample at a time keeps memory flat for large test sets; bincount is faster than an index look-up.
    for _ in range(resamples):
        yield np.bincount(rng.integers(count, size=count), minlength=count)


def percentile_interval(statistics: np.ndarray, confidence: float) -> tuple[float, float]:
    """The interval that leaves out as much at either end."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistics, [tail, 1 - tail])
    return float(low), float(high)


def paired_bootstrap(
    a: np.ndarray,
    b: np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    weights: np.ndarray | None = None,
) -> tuple[float, float, float]:
    """Mean of `a - b` with its bootstrap interval, resampling queries; both systems see the same queries.

    Args:
        a (`np.ndarray` of shape `(n,)`): Values of the first system.
        b (`np.ndarray` of shape `(n,)`): Values of the second system, for the same queries in the same order.

    The other arguments are those of [`bootstrap_mean`].

    Returns:
        `tuple[float, float, float]`: Difference, lower and upper end; it is significant if 0 lies outside.

    Raises:
        ValueError: If the lengths differ.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"a paired comparison needs the same queries, but there are {len(a)} and {len(b)} values")
    return bootstrap_mean(a - b, resamples, seed, confidence, weights)
