"""Metrics of a whole quality-against-cost curve."""

from collections.abc import Sequence

import numpy as np


def autc(
    costs: Sequence[float] | np.ndarray, qualities: Sequence[float] | np.ndarray, envelope: bool = False
) -> float:
    """Area under the trade-off curve: the mean quality over the log of the cost.

    The log costs are scaled to [0, 1], so that the area lies between the smallest and the largest quality and curves
    over the same costs compare.

    Args:
        costs (`Sequence[float]`): Positive cost of each level, for example bytes per vector; in any order.
        qualities (`Sequence[float]`): Quality of each level.
        envelope (`bool`, *optional*, defaults to `False`): Whether only the levels of [`pareto_envelope`] count, for
            levels that are not one chain. Beyond the last of them its quality holds up to the largest cost.

    Returns:
        `float`: The area, by the trapezoidal rule.

    Raises:
        ValueError: If there are fewer than two different costs or one is not positive.
    """
    cost, quality = np.asarray(costs, dtype=np.float64), np.asarray(qualities, dtype=np.float64)
    if cost.shape != quality.shape or cost.ndim != 1:
        raise ValueError(f"one quality a cost is needed, but the shapes are {cost.shape} and {quality.shape}")
    if len(np.unique(cost)) < 2 or not (cost > 0).all():
        raise ValueError(f"at least two different, positive costs are needed, but they are {cost.tolist()}")
    order = pareto_envelope(cost, quality) if envelope else np.argsort(cost, kind="stable")
    x, y = np.log(cost[order]), quality[order]
    if envelope:
        x, y = np.append(x, np.log(cost.max())), np.append(y, y[-1])
    return float(np.diff(x) @ (y[1:] + y[:-1]) / 2 / (x[-1] - x[0]))


def pareto_envelope(costs: Sequence[float] | np.ndarray, qualities: Sequence[float] | np.ndarray) -> list[int]:
    """Levels that no other one beats: none that costs as much or less is as good or better.

    Args:
        costs (`Sequence[float]`): Cost of each level, in any order.
        qualities (`Sequence[float]`): Quality of each level.

    Returns:
        `list[int]`: Indices of the levels, the cheapest first; of equals the first.
    """
    kept: list[int] = []
    for index in np.lexsort((-np.asarray(qualities), np.asarray(costs))).tolist():
        if not kept or qualities[index] > qualities[kept[-1]]:
            kept.append(index)
    return kept


def monotonicity_violations(qualities: Sequence[float], tolerance: float = 0.0) -> list[tuple[int, int]]:
    """Pairs of levels of which the larger is worse.

    Args:
        qualities (`Sequence[float]`): Quality of each level, the smallest level first.
        tolerance (`float`, *optional*, defaults to 0.0): How much worse the larger level may be.

    Returns:
        `list[tuple[int, int]]`: Indices (smaller level, larger level) of each pair.

    Raises:
        ValueError: If the tolerance is negative.
    """
    if tolerance < 0:
        raise ValueError(f"tolerance must not be negative, but is {tolerance}")
    values = list(qualities)
    return [
        (small, large)
        for small in range(len(values))
        for large in range(small + 1, len(values))
        if values[large] < values[small] - tolerance
    ]
