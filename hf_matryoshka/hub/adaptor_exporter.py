"""Exports of the adaptor: alone, or behind the base model whose embeddings it adapts."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from torch import nn

from ..modeling.modeling_matryoshka_adaptor import MatryoshkaAdaptorModel
from ..modeling.st_matryoshka_adaptor import MatryoshkaAdaptor
from .dense import DenseLayer, dense_layers
from .level_exporter import Comparison
from .self_contained import append_modules, copy_base_code_to_root
from .vector_exporter import VectorExporter, encode_samples


class AdaptorExporter(VectorExporter):
    """One level of an adaptor.

    A *stock* repo is the base model followed by plain `Dense` modules.

    Args:
        model ([`MatryoshkaAdaptorModel`]): The trained adaptor.
        level, base, shard_by_level: See [`VectorExporter`].
    """

    template = "adaptor.md"
    module_class = MatryoshkaAdaptor
    encode_kwargs = {"embeddings": {}}

    def outputs(
        self, model: MatryoshkaAdaptorModel, vectors: torch.Tensor, level: str | None
    ) -> dict[str, torch.Tensor]:
        return {"embeddings": model(vectors, level=level).embeddings}

    def _writer(self, form: str) -> Callable[[Path], None]:
        if form == "remote_code":
            return self._remote_code_writer()
        if self.base is None:
            raise ValueError("a stock repo takes texts, so it holds the base model, and base_model was not given")
        if form == "stock_padded":
            raise ValueError("an adaptor has no zero-padded form, because its dense form needs no padding")
        layers = dense_layers(self._trained, self.level)
        return lambda folder: self._write_stock(layers, folder)

    def _write_stock(self, layers: list[DenseLayer], folder: Path) -> None:
        modules = [
            Dense(
                layer.weight.shape[1],
                layer.weight.shape[0],
                bias=layer.bias is not None,
                activation_function=layer.activation,
                init_weight=layer.weight,
                init_bias=layer.bias,
            )
            for layer in layers
        ]
        append_modules(self.base, [*modules, Normalize()]).save(str(folder), create_model_card=False)
        copy_base_code_to_root(folder)

    def comparisons(self, form: str, folder: Path) -> Iterator[Comparison]:
        if form == "stock":
            yield from self._stock_comparisons(folder)
        else:
            yield from super().comparisons(form, folder)

    def _stock_comparisons(self, folder: Path) -> Iterator[Comparison]:
        model = self.load(folder, trust_remote_code=self.base.trust_remote_code)
        vectors, embeddings = self._sample_vectors(), encode_samples(self.base)
        tail = nn.Sequential(*list(model.children())[len(self.base) :])
        adapted = tail({"sentence_embedding": vectors.to(model.device, model.dtype)})["sentence_embedding"]
        yield Comparison(self.level, "Dense modules", adapted, self.expected(vectors, self.level)["embeddings"])
        expected = self.expected(embeddings, self.level)["embeddings"]
        yield Comparison(self.level, "SentenceTransformer", encode_samples(model), expected)

    def onnx_model(self, form: str, folder: Path) -> SentenceTransformer | MatryoshkaAdaptorModel:
        if self.base is None:
            return self._trained
        return self.load(folder, trust_remote_code=form == "remote_code" or self.base.trust_remote_code)

    def onnx_dims(self, form: str) -> list[int]:
        return [self.dim(level) for level in self.levels(form)]

    def card_fields(self, form: str) -> dict[str, Any]:
        trusted = self.base is not None and self.base.trust_remote_code
        return {**super().card_fields(form), "base_remote_code": trusted}
