"""The places of a Space's slider: how each level is computed, what it costs, and what it was measured to be worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..evaluation.curve import Curve
from ..evaluation.selection import quality_share
from .manifest import FamilyLevel
from .space_source import SpaceSource


# Costs that differ between levels and that a reader can do something with, and how they are called.
COSTS = {"parameters": "parameters", "flops_per_token": "FLOPs a token"}
CURVE_FILE = "curve.json"


@dataclass(frozen=True)
class SpaceLevel:
    """One place of the slider.

    Args:
        level ([`FamilyLevel`]): The level.
        dims (`list[int]`): Widths of its embeddings, the largest last; each is the beginning of the next.
        vectors (`str`): Name of the stored vectors that it searches.
        encode (`dict`): Arguments of `encode`.
    """

    level: FamilyLevel
    dims: list[int]
    vectors: str
    encode: dict[str, str]

    @property
    def name(self) -> str:
        """Name of the level."""
        return self.level.name

    def to_dict(self, largest: "SpaceLevel") -> dict[str, Any]:
        """What `app.py` reads."""
        return {
            "name": self.name,
            "dims": self.dims,
            "vectors": self.vectors,
            "encode": self.encode,
            "costs": level_costs(self),
            "scores": quality_texts(self, largest),
        }


def space_levels(source: SpaceSource, names: Sequence[str] | None = None) -> list[SpaceLevel]:
    """The levels that a repo serves, the smallest first.

    Args:
        source ([`SpaceSource`]): The repo.
        names (`Sequence[str]`, *optional*): Only these.

    Raises:
        ValueError: If one does not exist there, or there is nothing to choose from.
    """
    manifest, repo = source.manifest, source.manifest.repo
    served = [manifest.level(name) for name in repo.levels]
    if source.by_width:
        # A stock repo of one level also serves the smaller ones, as the beginnings of its embeddings.
        served = [level for level in manifest.levels if level.dim <= served[-1].dim]
    levels = [_level(source, level) for level in _with_scores(source, served)]
    known = [level.name for level in levels]
    for name in names or ():
        if name not in known:
            raise ValueError(f"level {name!r} is not in {source.hub_id or source.folder}; it has {', '.join(known)}")
    levels = [level for level in levels if not names or level.name in names]
    if len(levels) == 1 and len(levels[0].dims) == 1:
        raise ValueError(
            f"a slider needs two levels or more, but there is only {levels[0].name}; give the family, or more levels"
        )
    return levels


def common_costs(levels: Sequence[SpaceLevel]) -> list[str]:
    """The costs that all levels have and that are not the same for all."""
    found = []
    for word in COSTS.values():
        values = [level_costs(level).get(word) for level in levels]
        if None not in values and len(set(values)) > 1:
            found.append(word)
    return found


def level_costs(level: SpaceLevel) -> dict[str, float]:
    """What a level costs besides its vectors; nothing where all levels have one encoder."""
    if level.level.budget is None:
        return {}
    return {word: level.level.cost[key] for key, word in COSTS.items() if key in level.level.cost}


def quality_texts(level: SpaceLevel, largest: SpaceLevel) -> dict[str, str]:
    """The measured scores of a level as people read them, by metric and split."""
    best = {(score["metric"], score["split"]): score["value"] for score in largest.level.quality}
    found = {}
    for score in level.level.quality:
        key = (score["metric"], score["split"])
        text = f"{score['value']:.3f}"
        if score["low"] is not None:
            text += f" [{score['low']:.3f}, {score['high']:.3f}]"
        if level is not largest and best.get(key):
            text += f", {quality_share(score['value'], best[key]):.0%}"
        found["{} ({})".format(*key)] = text
    return found


def _level(source: SpaceSource, level: FamilyLevel) -> SpaceLevel:
    dims = [dim for dim in source.manifest.matryoshka_dims if dim < level.dim] + [level.dim]
    if source.manifest.repo.stock or source.by_width:
        # One encoder for all of them.
        return SpaceLevel(level, dims, "embeddings", {})
    return SpaceLevel(level, dims, level.name, {"level": level.name})


def _with_scores(source: SpaceSource, levels: Sequence[FamilyLevel]) -> list[FamilyLevel]:
    """Levels with the scores of a curve that lies beside the repos of a family, where the manifest has none."""
    path = source.folder.parent / CURVE_FILE
    if source.hub_id is not None or not path.is_file() or any(level.quality for level in levels):
        return list(levels)
    curve = Curve.from_json(path)
    points = {point.level: point for point in curve.points}
    return [
        FamilyLevel(level.name, level.dim, level.cost, _scores(curve, points.get(level.name)), level.budget)
        for level in levels
    ]


def _scores(curve: Curve, point: Any) -> list[dict[str, Any]]:
    if point is None:
        return []
    return [
        {
            "metric": curve.metric,
            "split": curve.split,
            "value": point.quality,
            "low": point.low,
            "high": point.high,
        }
    ]
