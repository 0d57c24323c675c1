"""Quality against cost over the levels of one model: the curve, its summaries, and the choice of a level."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.files import write_beside
from .bootstrap import bootstrap_mean, paired_bootstrap
from .metrics import autc, monotonicity_violations
from .selection import select_level


@dataclass(frozen=True)
class LevelPoint:
    """Score and cost of one level.

    Args:
        level (`str`): Name of the level, for example `"d64"`.
        dim (`int` or `None`): Its output width; `None` where levels are no chain of widths, such as budgets of width,
            heads and depth.
        quality (`float`): Score, higher is better.
        low (`float`, *optional*), high (`float`, *optional*): 95% interval of the quality.
        cost (`dict[str, float]`): For example `bytes_per_vector`, `parameters`, `macs`, `latency_ms`, `memory_mb`.
        per_query (`np.ndarray` of shape `(n,)`, *optional*): One value a query (sorted by id), pair or text, with the
            quality as their mean. Every level, and every system that is compared, has the same ones in the same order.
        weights (`np.ndarray` of shape `(n,)`, *optional*): What each of these stands for, such as the tokens of a row;
            the quality is then their weighted mean. The same for every level and system.
        contains (`tuple[str, ...]`, *optional*): Names of the levels that are inside this one, which alone it compares
            with as the larger; by default all that are listed before it.
    """

    level: str
    dim: int | None
    quality: float
    low: float | None = None
    high: float | None = None
    cost: dict[str, float] = field(default_factory=dict)
    per_query: np.ndarray | None = None
    weights: np.ndarray | None = None
    contains: tuple[str, ...] | None = None

    def minus(self, other: "LevelPoint") -> tuple[float, float | None, float | None]:
        """Difference of the qualities, with its 95% paired bootstrap interval where both have values.

        Raises:
            ValueError: If the values of the two are not of the same queries or rows.
        """
        if self.per_query is None or other.per_query is None:
            return self.quality - other.quality, None, None
        if not same_weights(self.weights, other.weights):
            raise ValueError(
                f"a paired comparison needs the same rows, but those of {self.level} and {other.level} have other "
                "weights"
            )
        return paired_bootstrap(self.per_query, other.per_query, weights=self.weights)


@dataclass(frozen=True)
class Violation:
    """A pair of levels of which the larger is worse; `difference` is larger minus smaller, with its 95% interval."""

    smaller: str
    larger: str
    difference: float
    low: float | None
    high: float | None

    @property
    def significant(self) -> bool | None:
        """Whether the interval excludes 0; `None` without an interval."""
        return None if self.high is None else self.high < 0


@dataclass
class Curve:
    """Quality against cost of one system on one split.

    Args:
        points (`list[LevelPoint]`): The levels, the smallest first. Where they have no `dim`, none is listed before
            one that it contains, and the last is the full size.
        metric (`str`): Name of the quality, for example `"ndcg_at_10"`.
        split (`str`): The data behind it, for example `"test"` or `"test_unseen"`.
        system (`str`): What was evaluated, for example `"ours"` or `"svd"`.
        baselines (`dict[str, Curve]`, *optional*): The same data scored by other systems.

    Raises:
        ValueError: If there are no points, they are not listed the smallest first, or two have one name.
    """

    points: list[LevelPoint]
    metric: str
    split: str
    system: str
    baselines: dict[str, "Curve"] = field(default_factory=dict)

    def __post_init__(self):
        dims, levels = self.dims, self.levels
        if not dims:
            raise ValueError(f"the curve of {self.system} has no levels")
        if len(set(levels)) < len(levels):
            raise ValueError(f"the levels of a curve must have names of their own, but are {', '.join(levels)}")
        for number, point in enumerate(self.points):
            later = [name for name in levels[number:] if name in (point.contains or ())]
            if later:
                raise ValueError(f"level {later[0]} is inside {point.level}, so it must be listed before it")
        widths = [dim for dim in dims if dim is not None]
        if not widths:
            return
        if len(widths) < len(dims):
            raise ValueError(f"all levels of a curve have a dim or none has, but {levels[dims.index(None)]} has none")
        if any(a >= b for a, b in zip(widths, widths[1:], strict=False)):
            raise ValueError(f"the levels of a curve must go from the smallest to the largest width, but are {dims}")

    @property
    def levels(self) -> list[str]:
        """Names of the levels, the smallest first."""
        return [point.level for point in self.points]

    @property
    def dims(self) -> list[int | None]:
        """Widths of the levels, the smallest first."""
        return [point.dim for point in self.points]

    @property
    def qualities(self) -> list[float]:
        """Quality of each level, the smallest level first."""
        return [point.quality for point in self.points]

    def __getitem__(self, level: str) -> LevelPoint:
        """The point of a level given by name; raises `KeyError` if there is none."""
        for point in self.points:
            if point.level == level:
                return point
        raise KeyError(f"level {level!r} does not exist; choose one of {', '.join(self.levels)}")

    @property
    def default_cost(self) -> str:
        """The cost that speaks for the size of a level: `bytes_per_vector`, or `macs` where levels have no `dim`."""
        return "bytes_per_vector" if self.points[0].dim is not None else "macs"

    def costs(self, cost: str) -> list[float]:
        """One cost of each level; raises `ValueError` if a level lacks it."""
        for point in self.points:
            if cost not in point.cost:
                known = ", ".join(sorted(point.cost)) or "none"
                raise ValueError(f"level {point.level} has no cost {cost!r}; its costs are: {known}")
        return [point.cost[cost] for point in self.points]

    def autc(self, cost: str | None = None, envelope: bool | None = None) -> float:
        """Area under the curve over the log of a cost, see [`~evaluation.metrics.autc`].

        Args:
            cost (`str`, *optional*): Which; [`Curve.default_cost`] by default.
            envelope (`bool`, *optional*): Whether only levels count that no cheaper one equals; by default where
                levels have no `dim`: of those that are no chain, some are a worse use of the same cost.

        Raises:
            ValueError: If a level lacks this cost, or all cost the same.
        """
        envelope = self.points[0].dim is None if envelope is None else envelope
        return autc(self.costs(cost or self.default_cost), self.qualities, envelope)

    def comparable_pairs(self) -> list[tuple[str, str]]:
        """Names of all pairs (smaller, larger) of which the one is inside the other."""
        return [
            (small.level, large.level)
            for number, large in enumerate(self.points)
            for small in self.points[:number]
            if large.contains is None or small.level in large.contains
        ]

    def violations(self, tolerance: float = 0.0) -> list[Violation]:
        """Comparable pairs of which the larger is worse by more than `tolerance`, with paired bootstrap intervals."""
        comparable = set(self.comparable_pairs())
        found = []
        for small, large in monotonicity_violations(self.qualities, tolerance):
            a, b = self.points[large], self.points[small]
            if (b.level, a.level) in comparable:
                _, low, high = a.minus(b)
                found.append(Violation(b.level, a.level, a.quality - b.quality, low, high))
        return found

    def select(
        self,
        min_quality: float | None = None,
        max_latency_ms: float | None = None,
        max_memory_mb: float | None = None,
        num_vectors: int | None = None,
    ) -> str:
        """Name of the level to use, see [`~evaluation.selection.select_level`]."""
        return select_level(self.points, min_quality, max_latency_ms, max_memory_mb, num_vectors)

    def rows(self, seeds: int = 1, **setting: Any) -> list[dict[str, Any]]:
        """The curve and its baselines as benchmark rows, one a level.

        Args:
            seeds (`int`, *optional*, defaults to 1): Number of runs behind each value.
            setting: Further keys of every row.

        Returns:
            `list[dict]`: Keys `system`, `level`, `split`, `metric`, `value`, `low`, `high`, `seeds`, the costs, and
            those of `setting`.
        """
        rows = [
            {
                "system": self.system,
                "level": point.level,
                "split": self.split,
                "metric": self.metric,
                "value": point.quality,
                "low": point.low,
                "high": point.high,
                "seeds": seeds,
                **point.cost,
                **setting,
            }
            for point in self.points
        ]
        for baseline in self.baselines.values():
            rows += baseline.rows(seeds, **setting)
        return rows

    def subset(self, rows: Sequence[int] | np.ndarray, split: str) -> "Curve":
        """The curve, with its baselines, over some of the queries only.

        Args:
            rows (`Sequence[int]`): Which of each point's `per_query` values.
            split (`str`): Name of the subset.

        Raises:
            ValueError: If a point has no values a query.
        """
        points = []
        for point in self.points:
            if point.per_query is None:
                raise ValueError(f"{point.level} of {self.system} has no values a query to take a subset of")
            values = point.per_query[rows]
            weights = None if point.weights is None else point.weights[rows]
            mean, low, high = bootstrap_mean(values, weights=weights)
            changed: dict[str, Any] = {
                "quality": mean,
                "low": low,
                "high": high,
                "per_query": values,
                "weights": weights,
            }
            points.append(replace(point, cost=dict(point.cost), **changed))
        baselines = {name: baseline.subset(rows, split) for name, baseline in self.baselines.items()}
        return Curve(points, self.metric, split, self.system, baselines)

    def to_json(self, path: str | os.PathLike) -> None:
        """Write the curve with its baselines; the file appears under its name only when it is whole."""
        with write_beside(Path(path)) as temporary:
            Path(temporary).write_text(json.dumps(self._to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_json(cls, path: str | os.PathLike) -> "Curve":
        """Read what [`Curve.to_json`] wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is no curve.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"curve {path} does not exist")
        try:
            return cls._from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise ValueError(f"{path} is no curve as written by Curve.to_json") from error

    def _to_dict(self) -> dict[str, Any]:
        def values(array: np.ndarray | None) -> list[float] | None:
            return None if array is None else [float(value) for value in array]

        return {
            "system": self.system,
            "metric": self.metric,
            "split": self.split,
            "points": [
                {**vars(point), "per_query": values(point.per_query), "weights": values(point.weights)}
                for point in self.points
            ],
            "baselines": [baseline._to_dict() for baseline in self.baselines.values()],
        }

    @classmethod
    def _from_dict(cls, data: dict[str, Any]) -> "Curve":
        # Files of older versions lack what was added since.
        arrays: dict[str, Callable[[Any], Any]] = {"per_query": np.array, "weights": np.array, "contains": tuple}
        points = [
            LevelPoint(
                **{
                    name: arrays[name](value) if name in arrays and value is not None else value
                    for name, value in point.items()
                }
            )
            for point in data["points"]
        ]
        baselines = [cls._from_dict(baseline) for baseline in data["baselines"]]
        return cls(points, data["metric"], data["split"], data["system"], {curve.system: curve for curve in baselines})


def same_weights(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    """Whether two points count their queries or rows alike; `None` counts each once."""
    return one is other or (one is not None and other is not None and np.array_equal(one, other))


def with_baselines(curves: Sequence[Curve]) -> list[Curve]:
    """The curves followed by their baselines, each system once.

    Raises:
        ValueError: If there is no curve, or their metrics or splits differ.
    """
    if not curves:
        raise ValueError("there is no curve to show")
    shown = {curve.system: curve for curve in curves}
    for curve in curves:
        for name, baseline in curve.baselines.items():
            shown.setdefault(name, baseline)
    for curve in shown.values():
        if (curve.metric, curve.split) != (curves[0].metric, curves[0].split):
            raise ValueError(
                f"curves must share metric and split, but {curve.system} has {curve.metric} on {curve.split} "
                f"and {curves[0].system} has {curves[0].metric} on {curves[0].split}"
            )
    return list(shown.values())
