"""What each output dimension and width of an encoder keeps and costs, as measured, and the choice between them."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

import torch

from .level_checkpoints import HUB_ARGUMENTS
from .level_files import fetch_file


FRONTIER_FILE = "dimension_frontier.json"
FORMAT_VERSION = 1
RESAMPLES = 2000


class InfeasibleConstraint(ValueError):
    """No dimension meets all demands.

    Args:
        message (`str`): What is demanded.
        relaxations (`dict[str, float]`): For each demand the value at which, all others unchanged, some dimension
            would meet them; only those with which there is one.
    """

    def __init__(self, message: str, relaxations: dict[str, float]):
        nearest = " or ".join(f"{name}={value:.4g}" for name, value in relaxations.items())
        super().__init__(f"{message}; {f'{nearest} would do' if nearest else 'no single demand is to blame'}")
        self.relaxations = relaxations


@dataclass(frozen=True)
class FrontierPoint:
    """One dimension at one level, as measured.

    Args:
        level (`str`): The level.
        dim (`int`): Dimensions of the embeddings.
        scores (`list[float]`): Quality of each held-out query, the same queries at every point.
        latency_ms (`dict[int, float]`): Median milliseconds to encode a text, by its number of tokens.
    """

    level: str
    dim: int
    scores: list[float]
    latency_ms: dict[int, float]

    @property
    def quality(self) -> float:
        """Mean of the scores."""
        return sum(self.scores) / len(self.scores)

    def latency(self, seq_len: int) -> float:
        """Milliseconds for a text of so many tokens: between two measured lengths by a straight line, beyond the
        longest in proportion to the length, below the shortest that of the shortest."""
        lengths = sorted(self.latency_ms)
        if seq_len <= lengths[0]:
            return self.latency_ms[lengths[0]]
        if seq_len >= lengths[-1]:
            return self.latency_ms[lengths[-1]] * seq_len / lengths[-1]
        upper = next(number for number, length in enumerate(lengths) if length >= seq_len)
        low, high = lengths[upper - 1], lengths[upper]
        share = (seq_len - low) / (high - low)
        return (1 - share) * self.latency_ms[low] + share * self.latency_ms[high]

    def memory_mb(self, num_docs: int) -> float:
        """Megabytes (10^6 bytes) of an index of so many float32 embeddings."""
        return 4 * self.dim * num_docs / 1e6


@dataclass(frozen=True)
class Frontier:
    """The measured points of an encoder.

    Args:
        points (`list[FrontierPoint]`): Level by level, each from its smallest dimension to its largest; the last is
            what qualities are compared with.
        metric (`str`): What the scores are, for example `"ndcg_at_10"`.
        split (`str`): The data behind them.
        machine (`str`): What the latencies were measured on.
    """

    points: list[FrontierPoint]
    metric: str
    split: str
    machine: str

    def __post_init__(self):
        if not self.points:
            raise ValueError("a frontier needs at least one point")
        if len({len(point.scores) for point in self.points}) > 1 or not self.points[0].scores:
            raise ValueError("the points of a frontier need the scores of the same queries, at least one")

    def retained(self, confidence: float | None = None, seed: int = 0) -> list[float]:
        """Share of the last point's quality that each point keeps.

        Args:
            confidence (`float`, *optional*): With it, not the share itself but its one-sided lower bound, by a paired
                bootstrap of the ratio over the queries.
            seed (`int`, *optional*, defaults to 0): Of the bootstrap.
        """
        scores = torch.tensor([point.scores for point in self.points], dtype=torch.float64)
        if confidence is None:
            return (scores.mean(1) / scores[-1].mean()).tolist()
        count = scores.shape[1]
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(count, (RESAMPLES, count), generator=generator)
        weights = torch.zeros(RESAMPLES, count, dtype=torch.float64)
        weights.scatter_add_(1, drawn, torch.ones_like(weights))
        means = scores @ weights.T
        return torch.quantile(means / means[-1], 1 - confidence, dim=1).tolist()

    def select(
        self,
        min_accuracy: float,
        max_latency_ms: float | None = None,
        max_memory_mb: float | None = None,
        *,
        num_docs: int | None = None,
        seq_len: int = 128,
        confidence: float = 0.95,
    ) -> FrontierPoint:
        """The smallest dimension that surely keeps enough quality and meets the limits, at its fastest level.

        A point counts only if every larger dimension of its level keeps enough, too: tested in this fixed order, the
        largest first, the promise holds with the given confidence for whatever point is chosen (fixed-sequence
        testing, as in Learn then Test, arXiv 2110.01052). Levels are tested side by side, so the confidence of each is
        corrected for their number (Bonferroni).

        Args:
            min_accuracy (`float`): Share of the full quality that must be kept, above 0 and up to 1.
            max_latency_ms (`float`, *optional*): Limit on the milliseconds to encode a text of `seq_len` tokens.
            max_memory_mb (`float`, *optional*): Limit on the megabytes of an index of `num_docs` embeddings.
            num_docs (`int`, *optional*): Embeddings in that index; 1 by default.
            seq_len (`int`, *optional*, defaults to 128): Tokens of a text.
            confidence (`float`, *optional*, defaults to 0.95): How sure the quality must be, in `[0.5, 1)`.

        Returns:
            [`FrontierPoint`].

        Raises:
            InfeasibleConstraint: If no point meets all demands; `relaxations` says which change of one would do.
            ValueError: If a demand is out of range.
        """
        if not 0 < min_accuracy <= 1:
            raise ValueError(f"min_accuracy is a share of the full quality, in (0, 1], but is {min_accuracy}")
        if not 0.5 <= confidence < 1:
            raise ValueError(f"confidence must be in [0.5, 1), but is {confidence}")
        limits = {"max_latency_ms": max_latency_ms, "max_memory_mb": max_memory_mb, "num_docs": num_docs}
        for name, value in {**limits, "seq_len": seq_len}.items():
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, but is {value}")
        docs = 1 if num_docs is None else num_docs
        assured = self.assured(confidence)
        costs = {
            "max_latency_ms": (max_latency_ms, [point.latency(seq_len) for point in self.points]),
            "max_memory_mb": (max_memory_mb, [point.memory_mb(docs) for point in self.points]),
        }
        met = {
            name: [limit is None or cost <= limit for cost in values] for name, (limit, values) in costs.items()
        } | {"min_accuracy": [bound >= min_accuracy for bound in assured]}
        feasible = [index for index, fits in enumerate(zip(*met.values(), strict=True)) if all(fits)]
        if feasible:
            speeds = costs["max_latency_ms"][1]
            return self.points[min(feasible, key=lambda index: (self.points[index].dim, speeds[index]))]
        relaxations = {}
        for name in met:
            others = zip(*(fits for other, fits in met.items() if other != name), strict=True)
            left = [index for index, fits in enumerate(others) if all(fits)]
            if left and name == "min_accuracy":
                # Rounded down, so that the value itself is one that would do.
                relaxations[name] = int(1e4 * max(assured[index] for index in left)) / 1e4
            elif left:
                relaxations[name] = min(costs[name][1][index] for index in left)
        asked = {"min_accuracy": min_accuracy, **limits}
        demand = ", ".join(f"{name}={value:g}" for name, value in asked.items() if value is not None)
        raise InfeasibleConstraint(
            f"no dimension meets {demand} at {seq_len} tokens with confidence {confidence:g}", relaxations
        )

    def assured(self, confidence: float) -> list[float]:
        """The share of the full quality that each point keeps at least, as [`~Frontier.select`] reckons: the smallest
        lower bound of its own and of the larger dimensions of its level. The last point keeps all by definition."""
        levels = list(dict.fromkeys(point.level for point in self.points))
        bounds = self.retained(1 - (1 - confidence) / len(levels))
        bounds[-1] = 1.0
        assured = list(bounds)
        for index in reversed(range(len(bounds) - 1)):
            if self.points[index].level == self.points[index + 1].level:
                assured[index] = min(assured[index], assured[index + 1])
        return assured

    def trade_offs(self, num_docs: int = 1_000_000, seq_len: int = 128, confidence: float = 0.95) -> list[dict]:
        """One entry a point: `level`, `dim`, `quality`, the share `retained` of the full quality, its lower bound
        `assured`, `latency_ms` of a text of `seq_len` tokens and `memory_mb` of an index of `num_docs` embeddings."""
        return [
            {
                "level": point.level,
                "dim": point.dim,
                "quality": point.quality,
                "retained": share,
                "assured": bound,
                "latency_ms": point.latency(seq_len),
                "memory_mb": point.memory_mb(num_docs),
            }
            for point, share, bound in zip(self.points, self.retained(), self.assured(confidence), strict=True)
        ]

    def save(self, path: str | os.PathLike) -> None:
        """Writes a JSON file, which appears when it is whole."""
        temporary = f"{os.fspath(path)}.{os.getpid()}"
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump({"format_version": FORMAT_VERSION, **asdict(self)}, file)
            os.replace(temporary, path)
        finally:
            if os.path.exists(temporary):
                os.remove(temporary)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Frontier":
        """Reads a file of [`~Frontier.save`].

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is another file, or of a newer format.
        """
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{path} does not exist; give a file that Frontier.save wrote")
        try:
            with open(path, encoding="utf-8") as file:
                content = json.load(file)
            version = content.pop("format_version")
            if version > FORMAT_VERSION:
                raise ValueError(f"its format version {version} is newer than {FORMAT_VERSION}")
            content["points"] = [_point(point) for point in content["points"]]
            return cls(**content)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} is no file that this version of Frontier.save wrote ({error})") from error


def _point(fields: dict) -> FrontierPoint:
    # JSON has no numbers as keys.
    latencies = {int(length): value for length, value in fields.pop("latency_ms").items()}
    return FrontierPoint(**fields, latency_ms=latencies)


class FrontierMixin:
    """The choice of a dimension by a model that has a measured frontier, set as `frontier` or stored in its repo."""

    _frontier: Frontier | None = None

    @property
    def frontier(self) -> Frontier | None:
        """The measured frontier, if there is one."""
        return self._frontier

    @frontier.setter
    def frontier(self, frontier: Frontier | None) -> None:
        missing = [] if frontier is None else self._not_mine(frontier.points)
        if missing:
            raise ValueError(
                f"the frontier has the level {missing[0].level} with {missing[0].dim} dimensions, which this model "
                "has not; measure this one"
            )
        self._frontier = frontier

    def _not_mine(self, points: Sequence[FrontierPoint]) -> list[FrontierPoint]:
        dims, levels = self.config.matryoshka_dims, self.config.levels
        return [point for point in points if point.level not in levels or point.dim not in dims]

    def _known_frontier(self) -> Frontier:
        if self._frontier is None:
            raise ValueError(
                "nothing was measured for this model yet; run measure_frontier, or load a repo that holds a "
                f"{FRONTIER_FILE}"
            )
        return self._frontier

    def select_optimal_dimension(self, min_accuracy: float, *args, **kwargs) -> FrontierPoint:
        """[`~Frontier.select`] of the model's own frontier: the `dim` and the `level` to encode with."""
        return self._known_frontier().select(min_accuracy, *args, **kwargs)

    def trade_offs(self, **kwargs) -> list[dict]:
        """[`~Frontier.trade_offs`] of the model's own frontier."""
        return self._known_frontier().trade_offs(**kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, *args, **kwargs) -> None:
        """[`~transformers.PreTrainedModel.save_pretrained`], with the frontier."""
        super().save_pretrained(save_directory, *args, **kwargs)
        path = os.path.join(save_directory, FRONTIER_FILE)
        if self._frontier is not None:
            self._frontier.save(path)
        elif os.path.isfile(path):
            # Of the weights that were there before.
            os.remove(path)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike | None, *args, **kwargs) -> Self:
        """[`~transformers.PreTrainedModel.from_pretrained`], with the frontier if the repo has one."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        if pretrained_model_name_or_path is None:
            return loaded
        hub = {name: kwargs[name] for name in HUB_ARGUMENTS if kwargs.get(name) is not None}
        path = fetch_file(str(pretrained_model_name_or_path), FRONTIER_FILE, **hub)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if path is not None:
            frontier = Frontier.load(path)
            # A level by itself is another model.
            model._frontier = None if model._not_mine(frontier.points) else frontier
        return loaded


__all__ = ["FRONTIER_FILE", "Frontier", "FrontierMixin", "FrontierPoint", "InfeasibleConstraint"]
