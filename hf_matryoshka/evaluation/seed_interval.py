"""The mean over seeds, and how well so few of them say it."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def seed_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> dict[str, float | int | None]:
    """Mean of one value a seed with Student's t-interval; of differences by seed it is the paired interval.

    Args:
        values (`Sequence[float]`): One value a seed.
        confidence (`float`, *optional*, defaults to 0.95): Coverage of the interval.

    Returns:
        `dict`: `value`, `low`, `high` (`None` with one seed) and `seeds`, as in the rows of a report.

    Raises:
        ValueError: If there are no values.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise ValueError("there are no values to take a mean of")
    mean, low, high = float(values.mean()), None, None
    if len(values) > 1:
        half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
        low, high = mean - float(half), mean + float(half)
    return {"value": mean, "low": low, "high": high, "seeds": len(values)}
