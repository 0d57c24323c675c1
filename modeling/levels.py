"""The vocabulary that every nested config shares: levels, from the smallest to the largest, and checks of numbers."""

import copy
import math
from typing import Self

from transformers.activations import ACT2FN


class LevelsMixin:
    """Names and look-up of the nested sizes of a model; mixed into each `PreTrainedConfig` of this package.

    A subclass defines `levels`, the tuple of names from the smallest to the largest, and `cut`. A name is also a valid
    suffix of a Hub repo name, for example `"d64"`.
    """

    @property
    def levels(self) -> tuple[str, ...]:
        raise NotImplementedError(f"{type(self).__name__} must define the property `levels`")

    def cut(self, level: int | str | None = None) -> Self:
        """Config of a level as a model of its own.

        Args:
            level (`int`, `str` or `None`): The level, `None` for the largest.

        Returns:
            `PreTrainedConfig`: A new config of the same class, whose levels are those up to this one.

        Raises:
            ValueError: If the level does not exist.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `cut`")

    def level_index(self, level: int | str | None) -> int:
        """Position of a level in `levels`.

        Args:
            level (`int`, `str` or `None`): An index, a name, or `None` for the largest level.

        Returns:
            `int`: The index, `0` for the smallest level.

        Raises:
            ValueError: If the level does not exist.
        """
        levels = self.levels
        if level is None:
            return len(levels) - 1
        if isinstance(level, str) and level in levels:
            return levels.index(level)
        if isinstance(level, int) and not isinstance(level, bool) and 0 <= level < len(levels):
            return int(level)
        raise ValueError(
            f"level {level!r} does not exist; choose one of {', '.join(levels)} or an index up to {len(levels) - 1}"
        )

    def level_name(self, level: int | str | None) -> str:
        """Name of a level given by index, name or `None` (the largest); raises `ValueError` if there is none."""
        return self.levels[self.level_index(level)]


class DimLevelsMixin(LevelsMixin):
    """Levels of a model that differ in one width, listed in `matryoshka_dims`."""

    @property
    def levels(self) -> tuple[str, ...]:
        """Level names, `"d<width>"`, smallest first."""
        return tuple(f"d{dim}" for dim in self.matryoshka_dims)

    def level_dim(self, level: int | str | None = None) -> int:
        """Width of a level; raises `ValueError` if there is none."""
        return self.matryoshka_dims[self.level_index(level)]

    def cut(self, level: int | str | None = None) -> Self:
        config = copy.deepcopy(self)
        config.matryoshka_dims = self.matryoshka_dims[: self.level_index(level) + 1]
        return config


def check_matryoshka_dims(dims: list[int] | tuple[int, ...], name: str = "matryoshka_dims") -> None:
    """Raise `ValueError` unless `dims` are positive and strictly increasing; the message calls them `name`."""
    if not dims:
        raise ValueError(f"{name} is empty; give at least one dimension, for example [64, 128, 384]")
    if any(dim < 1 for dim in dims) or any(a >= b for a, b in zip(dims, dims[1:], strict=False)):
        raise ValueError(f"{name} must be positive and strictly increasing, but is {list(dims)}")


def check_at_least(least: float, **arguments: float | None) -> None:
    """Raise `ValueError` unless each argument is a finite number from `least` on; `None`, not known yet, passes."""
    for name, value in arguments.items():
        if value is not None and not least <= value < math.inf:
            raise ValueError(f"{name} must be at least {least}, but is {value}")


def check_above_zero(**arguments: float) -> None:
    """Raise `ValueError` unless each argument is a finite number above 0."""
    for name, value in arguments.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0, but is {value}")


def check_probabilities(**arguments: float | None) -> None:
    """Raise `ValueError` unless each argument is `None` or from 0 to 1."""
    for name, value in arguments.items():
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name} must be from 0 to 1, but is {value}")


def check_pad_token(pad_token_id: int | None, vocab_size: int) -> None:
    """Raise `ValueError` unless the padding token is `None` or in the vocabulary."""
    if pad_token_id is not None and pad_token_id >= vocab_size:
        raise ValueError(f"pad_token_id {pad_token_id} must be less than vocab_size {vocab_size}, or none")


def check_activation(**arguments: str) -> None:
    """Raise `ValueError` unless each argument is the name of an activation of transformers."""
    for name, value in arguments.items():
        if value not in ACT2FN:
            raise ValueError(f"{name} {value!r} does not exist; choose one of {', '.join(ACT2FN)}")


def default_matryoshka_dims(dim: int) -> list[int]:
    """Log-spaced dimensions (factors 1.5 and 2 alternating) from 16, or from `dim` itself if smaller, up to `dim`."""
    dims = sorted({size for power in range(4, 16) for size in (2**power, 3 * 2 ** (power - 1)) if size < dim})
    return [*dims, dim]


def resolve_matryoshka_dim(dims: list[int] | tuple[int, ...], dim: int | None) -> int:
    """`dim` itself if it was trained, the largest if it is `None`.

    Raises:
        ValueError: If the dimension was not trained; the message lists the trained ones.
    """
    if dim is None:
        return dims[-1]
    if dim not in dims:
        raise ValueError(f"matryoshka_dim {dim} was not trained; choose one of {', '.join(map(str, dims))}")
    return int(dim)
