"""What an export needs to know about an architecture."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from .manifest import FULL


# The strongest first: a plain stock class, one padded with zeros, the nested model with its code.
FORMS = ("stock", "stock_padded", "remote_code")
# Texts that are run through what was written and through the trained model.
SAMPLE_TEXTS = (
    "matryoshka",
    "A small model is a leading part of the large one.",
    "Which gene is mutated in cystic fibrosis?",
    "The first 64 numbers of an embedding, brought back to unit length, are an embedding by themselves; "
    "an index of them takes a sixth of the memory, and the search takes a sixth of the time.",
    "Die kleinste Puppe steckt in allen anderen.",
    "def truncate(x, k): return x[:k] / norm(x[:k])",
    "1, 2, 3, ...",
)


class Comparison(NamedTuple):
    """Outputs that must be equal.

    Args:
        level (`str`): The level that was computed.
        what (`str`): Which way of loading gave the output, for example `"AutoModelForMaskedLM"`.
        actual, expected (`torch.Tensor`): The output of the repo, and that of the trained model.
    """

    level: str
    what: str
    actual: torch.Tensor
    expected: torch.Tensor


class LevelExporter(ABC):
    """Writes one level of a nested model in each form that it has, and loads it back.

    Args:
        model (`PreTrainedModel`): The nested model; it is left alone.
        level (`int`, `str` or `None`): The level, `None` for the largest; `"full"` for a repo that holds all levels,
            which is always remote code.

    Raises:
        ValueError: If the level does not exist.
    """

    # Template of the card.
    template: str
    # What the repo takes: "text", "embeddings" or "tokens".
    inputs: str
    # Why there is no ONNX graph of it, if so.
    no_onnx: str | None = None

    def __init__(self, model: PreTrainedModel, level: int | str | None):
        self.model = model
        self.full = level == FULL
        self.level = model.config.level_name(None if self.full else level)

    @property
    def name(self) -> str:
        """Name of the repo in its family."""
        return FULL if self.full else self.level

    def levels(self, form: str) -> list[str]:
        """The levels that a repo of this form serves, its default last."""
        if form != "remote_code":
            return [self.level]
        if self.full:
            return list(self.model.config.levels)
        return list(self.model.config.cut(self.level).levels)

    def writer(self, form: str) -> Callable[[Path], None]:
        """A function that writes this form into an empty folder.

        Raises:
            ValueError: If the level has no such form that is exact; the message says why.
        """
        if self.full and form != "remote_code":
            raise ValueError("it holds all levels in one, for which there is no stock class")
        return self._writer(form)

    def auto_writer(self, form: str) -> Callable[[Path], None]:
        """As [`~LevelExporter.writer`], of a form that may be chosen without being asked for."""
        return self.writer(form)

    @abstractmethod
    def _writer(self, form: str) -> Callable[[Path], None]: ...

    @abstractmethod
    def comparisons(self, form: str, folder: Path) -> Iterator[Comparison]:
        """Loads a folder in every way that its users have, and yields what each gives."""

    @abstractmethod
    def onnx_model(self, form: str, folder: Path) -> Any:
        """What [`~hub.onnx_export.export_onnx`] turns into a graph, for a repo that lies in `folder`."""

    @property
    @abstractmethod
    def dtypes(self) -> set[torch.dtype]:
        """Number formats of the weights: half precision has its own tolerance."""

    @abstractmethod
    def card_fields(self, form: str) -> dict[str, Any]:
        """What the template says about this architecture."""

    @abstractmethod
    def dim(self, level: str) -> int | None:
        """Width of a level's output, where it is an embedding."""

    @abstractmethod
    def onnx_dims(self, form: str) -> list[int] | None:
        """The widths that the graph of [`LevelExporter.onnx_model`] serves; `None` if its output is no embedding."""

    def onnx_stream_model(self, form: str) -> PreTrainedModel | None:
        """What [`~hub.onnx_stream.export_onnx_stream`] turns into a graph; `None` where there is none."""
        return None

    def matryoshka_dims(self, level: str | None = None) -> list[int]:
        """The output widths that were trained besides the levels: all, or those that a level has."""
        return []

    def budget(self, level: str) -> list | None:
        """Width, heads and depth of a level, where that is what a level is."""
        return None

    def cost(self, level: str) -> dict[str, float]:
        """What a level costs."""
        return dict(self.model.cost(level))


def on_cpu(model: PreTrainedModel) -> PreTrainedModel:
    """The model on the CPU and in evaluation mode; a copy if it is not so already."""
    if model.training or any(tensor.device.type != "cpu" for tensor in model.state_dict().values()):
        import copy

        return copy.deepcopy(model).cpu().eval()
    return model
