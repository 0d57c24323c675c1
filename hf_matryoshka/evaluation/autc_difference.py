"""The area under the trade-off curve of one system against that of another, with its interval."""

import numpy as np

from .bootstrap import percentile_interval, resample_counts
from .curve import Curve, same_weights
from .metrics import autc


def autc_difference(
    curve: Curve,
    other: Curve,
    cost: str | None = None,
    envelope: bool | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float | None, float | None]:
    """AUTC of a curve minus that of another, such as of models that were trained independently.

    Args:
        curve (`Curve`): The one.
        other (`Curve`): The other, of the same metric on the same rows; its levels may have other names, but their
            costs have the same ends.
        cost (`str`, *optional*), envelope (`bool`, *optional*): As for [`Curve.autc`].
        resamples (`int`, *optional*, defaults to 2000): Bootstrap samples of the rows.
        seed (`int`, *optional*, defaults to 0): Their seed.

    Returns:
        `tuple[float, float, float]`: Difference, and its 95% paired bootstrap interval; `None` where a level has no
        values a row.

    Raises:
        ValueError: If the curves do not compare: another metric or split, other rows, or other ends of the costs.
    """
    cost = cost or curve.default_cost
    envelope = curve.points[0].dim is None if envelope is None else envelope
    if (curve.metric, curve.split) != (other.metric, other.split):
        raise ValueError(
            f"curves must share metric and split, but {other.system} has {other.metric} on {other.split} "
            f"and {curve.system} has {curve.metric} on {curve.split}"
        )
    costs = [each.costs(cost) for each in (curve, other)]
    ends = [(min(values), max(values)) for values in costs]
    if not np.allclose(ends[0], ends[1], rtol=1e-6):
        raise ValueError(
            f"the areas of {curve.system} and {other.system} compare over the same range of {cost} only, but they are "
            f"{ends[0][0]:g} to {ends[0][1]:g} and {ends[1][0]:g} to {ends[1][1]:g}"
        )
    difference = curve.autc(cost, envelope) - other.autc(cost, envelope)
    points = [*curve.points, *other.points]
    rows = [point.per_query for point in points if point.per_query is not None]
    if len(rows) < len(points):
        return difference, None, None
    first = points[0]
    for point, own in zip(points, rows, strict=True):
        if own.shape != rows[0].shape or not same_weights(point.weights, first.weights):
            raise ValueError(f"the curves of {curve.system} and {other.system} were not scored on the same rows")
    weights = np.ones(len(rows[0])) if first.weights is None else first.weights
    values = np.stack([weights * own for own in rows], axis=1)
    size = len(curve.points)
    found = []
    for counts in resample_counts(len(weights), resamples, seed):
        means = counts @ values / (counts @ weights)
        found.append(autc(costs[0], means[:size], envelope) - autc(costs[1], means[size:], envelope))
    return difference, *percentile_interval(np.array(found), 0.95)
