"""The choice of a level under demands on quality, latency and memory."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from .curve import LevelPoint


def select_level(
    points: "Sequence[LevelPoint]",
    min_quality: float | None = None,
    max_latency_ms: float | None = None,
    max_memory_mb: float | None = None,
    num_vectors: int | None = None,
) -> str:
    """The level to use.

    With `min_quality` it is the smallest level that meets every demand; with limits on cost only, the level of the
    highest quality within them (of equals the smaller). Of levels neither of which is inside the other, such as half
    the width and half the depth, the one that is listed first counts as the smaller.

    Args:
        points (`Sequence[LevelPoint]`): The levels, the smallest first.
        min_quality (`float`, *optional*): Share of the largest level's quality that must be kept, for example 0.95.
            It is always relative, never an absolute score. Of qualities below 0, such as a mean log-likelihood, it is
            the inverse ratio: 0.95 allows a negative log-likelihood of 1 / 0.95 times that of the largest level.
        max_latency_ms (`float`, *optional*): Limit on the measured latency, the cost `latency_ms`.
        max_memory_mb (`float`, *optional*): Limit on the size of an index, in megabytes of 10^6 bytes.
        num_vectors (`int`, *optional*): Number of vectors in that index; without it, the cost `memory_mb` is used.

    Returns:
        `str`: Name of the level.

    Raises:
        ValueError: If nothing is demanded, a cost was not measured, or no level meets the demands; the message says
            what can be reached.
    """
    if min_quality is None and max_latency_ms is None and max_memory_mb is None:
        raise ValueError("say what the level must meet: min_quality, max_latency_ms or max_memory_mb")
    if num_vectors is not None and num_vectors < 1:
        raise ValueError(f"num_vectors must be positive, but is {num_vectors}")
    full = points[-1].quality
    candidates = list(points)

    def keep(
        value: "Callable[[LevelPoint], float]",
        demand: str,
        fits: Callable[[float], bool],
        best: "Callable[..., LevelPoint]",
    ) -> None:
        met = [point for point in candidates if fits(value(point))]
        if not met:
            reached = best(candidates, key=value)
            raise ValueError(
                f"no level meets {demand}{' and the other limits' if len(candidates) < len(points) else ''}; "
                f"the closest is {reached.level} with {value(reached):.4g}"
            )
        candidates[:] = met

    if max_latency_ms is not None:
        _check_measured(points, "latency_ms", "measure it with hf_matryoshka.evaluation.cost.level_cost")
        keep(
            lambda point: point.cost["latency_ms"],
            f"max_latency_ms={max_latency_ms:g}",
            lambda value: value <= max_latency_ms,
            min,
        )
    if max_memory_mb is not None:
        if num_vectors is None:
            _check_measured(points, "memory_mb", "give num_vectors, the number of vectors in the index")
        else:
            _check_measured(points, "bytes_per_vector", "it is needed to size the index")
        keep(
            lambda point: (
                point.cost["memory_mb"] if num_vectors is None else point.cost["bytes_per_vector"] * num_vectors / 1e6
            ),
            f"max_memory_mb={max_memory_mb:g}",
            lambda value: value <= max_memory_mb,
            min,
        )
    if min_quality is None:
        return max(candidates, key=lambda point: point.quality).level
    keep(
        lambda point: quality_share(point.quality, full),
        f"min_quality={min_quality:g} (a share of the largest level's quality {full:.4g})",
        lambda value: value >= min_quality,
        max,
    )
    return candidates[0].level


def quality_share(quality: float, full: float) -> float:
    """Share of the quality `full` that is kept; 1 is all of it, and of negative qualities it is the inverse ratio."""
    if full < 0:
        return full / quality if quality < 0 else float("inf")
    return quality / full if full else 0.0


def _check_measured(points: "Sequence[LevelPoint]", cost: str, remedy: str) -> None:
    missing = [point.level for point in points if cost not in point.cost]
    if missing:
        raise ValueError(f"level {missing[0]} has no cost {cost!r}: {remedy}")
