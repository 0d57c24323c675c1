"""Exports of a Matryoshka Mamba encoder: by itself, or as a sentence-embedding model."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..modeling.modeling_matryoshka_mamba import MatryoshkaMambaModel
from ..modeling.st_matryoshka_mamba import mamba_tokenizer
from .level_exporter import Comparison
from .model_exporter import ModelExporter
from .sentence_encoder_exporter import SentenceEncoderExporter


class MambaLevels:
    """What both exports of a [`MatryoshkaMambaModel`] have in common; their first base class."""

    template = "mamba.md"

    def auto_writer(self, form: str) -> Callable[[Path], None]:
        writer = self.writer(form)
        if form != "remote_code":
            raise ValueError("a Mamba2Model gives vectors of tokens, but no embeddings of texts")
        return writer

    def matryoshka_dims(self, level: str | None = None) -> list[int]:
        return list(self.model.config.matryoshka_dims)

    def dim(self, level: str) -> int:
        return self.matryoshka_dims()[-1]

    def budget(self, level: str) -> list:
        config = self.model.config
        heads, _ = config.level_sizes(level)
        return [round(config.widths[config.level_index(level)], 4), heads, config.num_hidden_layers]

    def _default_level(self, level: str) -> str:
        return self.model.config.cut(level).level_of_dim()

    def _compare(
        self, name: str, loaded: PreTrainedModel, inputs: dict[str, torch.Tensor], level: str, kwargs: dict[str, str]
    ) -> Iterator[Comparison]:
        yield from super()._compare(name, loaded, inputs, level, kwargs)
        if loaded.config.model_type != self.model.config.model_type:
            return
        for dim, actual in loaded.embed_all(**inputs, **kwargs).items():
            level = kwargs.get("level") or loaded.config.level_of_dim(dim)
            expected = self._trained(**inputs, level=level, matryoshka_dim=dim, return_tokens=False).embeddings
            yield Comparison(level, f"{name} of {dim} dimensions", actual, expected)

    def onnx_stream_model(self, form: str) -> PreTrainedModel | None:
        if form != "remote_code" or self.model.config.direction != "causal":
            return None
        return self._trained.cut(self._default_level(self.level))

    def card_fields(self, form: str) -> dict[str, Any]:
        config, frontier, levels = self.model.config, self.model.frontier, self.levels(form)
        rows = [] if frontier is None else [row for row in frontier.trade_offs() if row["level"] in levels]
        return {
            **super().card_fields(form),
            "embedding_dim": self.dim(self.level),
            "matryoshka_dims": self.matryoshka_dims(),
            "direction": config.direction,
            "segment_length": config.segment_length,
            "dim_levels": None if config.dim_widths is None else self._dim_levels(),
            "frontier": frontier,
            "trade_offs": rows,
        }

    def _dim_levels(self) -> dict[int, str]:
        """The level that computes each dimension where none is asked for."""
        config = self.model.config.cut(self.level)
        return {dim: config.level_of_dim(dim) for dim in config.matryoshka_dims}


class MambaExporter(MambaLevels, ModelExporter):
    """One level of a [`MatryoshkaMambaModel`] by itself.

    A *stock* repo, written only where it is asked for, is the blocks without the head: a `Mamba2Model`.

    Args:
        model, level, tokenizer, shard_by_level: As in [`ModelExporter`].
    """

    def __init__(
        self,
        model: MatryoshkaMambaModel,
        level: int | str | None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        shard_by_level: bool = False,
    ):
        tokenizer = None if tokenizer is None else mamba_tokenizer(tokenizer)
        super().__init__(model, level, tokenizer, shard_by_level)

    def onnx_model(self, form: str, folder: Path) -> PreTrainedModel:
        if form == "remote_code":
            return super().onnx_model(form, folder)
        return self._trained.to_stock(self.level, padded=form == "stock_padded")


class MambaEncoderExporter(MambaLevels, SentenceEncoderExporter):
    """One level of a `SentenceTransformer` whose first module is a [`MatryoshkaMambaTransformer`]; always remote code.

    Args:
        encoder, level, shard_by_level: As in [`SentenceEncoderExporter`].
    """

    def _writer(self, form: str) -> Callable[[Path], None]:
        if form != "remote_code":
            raise ValueError(
                "each band of its embeddings has a pooling and a projection of its own, for which "
                "sentence-transformers has no module"
            )
        return super()._writer(form)

    def onnx_dims(self, form: str) -> list[int]:
        # A graph computes one level, and so the dimensions that have the level of the largest.
        levels = self._dim_levels()
        return [dim for dim, level in levels.items() if level == levels[self.dim(self.level)]]
