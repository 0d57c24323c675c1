"""Percentile bootstrap (Efron, 1979) of means over queries, and of paired differences."""

import numpy as np


def bootstrap_mean(
    values: np.ndarray, resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Mean with its bootstrap interval.

    Args:
        values (`np.ndarray` of shape `(n,)`): One value a query (or pair, or example).
        resamples (`int`, *optional*, defaults to 2000): Number of bootstrap samples.
        seed (`int`, *optional*, defaults to 0): Seed; equal seeds and lengths give equal samples.
        confidence (`float`, *optional*, defaults to 0.95): Coverage of the interval.

    Returns:
        `tuple[float, float, float]`: Mean, lower and upper end.

    Raises:
        ValueError: If there are no values, or one is not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"a bootstrap needs a list of at least one value, but the shape is {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"value {int(np.flatnonzero(~np.isfinite(values))[0])} of the bootstrap is not finite")
    rng = np.random.default_rng(seed)
    count = len(values)
    # One resample at a time keeps memory flat for large test sets; bincount is faster than an index look-up.
    means = np.array(
        [np.bincount(rng.integers(count, size=count), minlength=count) @ values / count for _ in range(resamples)]
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(values.mean()), float(low), float(high)


def paired_bootstrap(
    a: np.ndarray, b: np.ndarray, resamples: int = 2000, seed: int = 0, confidence: float = 0.95
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
    return bootstrap_mean(a - b, resamples, seed, confidence)
