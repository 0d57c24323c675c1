"""Exports of the adaptor: alone, or behind the base model whose embeddings it adapts."""

import copy
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from torch import nn
from torch.nn import functional as F
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from ..modeling.modeling_matryoshka_adaptor import MatryoshkaAdaptorModel
from ..modeling.st_matryoshka_adaptor import MatryoshkaAdaptor
from .dense import DenseLayer, dense_layers
from .level_exporter import SAMPLE_TEXTS, Comparison, LevelExporter, on_cpu
from .self_contained import append_modules, save_adaptor_in_root


class AdaptorExporter(LevelExporter):
    """One level of an adaptor.

    A *stock* repo is the base model followed by plain `Dense` modules. A *remote-code* repo is that of the adaptor,
    with the base model, if there is one, in sub-folders.

    Args:
        model ([`MatryoshkaAdaptorModel`]): The trained adaptor.
        level (`int`, `str` or `None`): See [`LevelExporter`].
        base (`SentenceTransformer`, *optional*): The base model, see [`load_base`].
        shard_by_level (`bool`, *optional*, defaults to `False`): Whether a repo of several levels has its weights in
            one shard a level.
    """

    template = "adaptor.md"

    def __init__(
        self,
        model: MatryoshkaAdaptorModel,
        level: int | str | None,
        base: SentenceTransformer | None = None,
        shard_by_level: bool = False,
    ):
        super().__init__(model, level)
        self.base = base
        self.inputs = "embeddings" if base is None else "text"
        self.shard_by_level = shard_by_level
        self._trained = on_cpu(model)

    def _writer(self, form: str) -> Callable[[Path], None]:
        if form == "remote_code":
            adaptor = copy.deepcopy(self._trained) if self.full else self._trained.cut(self.level)
            return lambda folder: self._write_remote_code(adaptor, folder)
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

    def _write_remote_code(self, adaptor: MatryoshkaAdaptorModel, folder: Path) -> None:
        if self.base is not None:
            save_adaptor_in_root(self.base, MatryoshkaAdaptor(adaptor), folder)
        if self.base is None or self.shard_by_level:
            adaptor.save_pretrained(folder, shard_by_level=self.shard_by_level)

    def comparisons(self, form: str, folder: Path) -> Iterator[Comparison]:
        if form == "stock":
            yield from self._stock_comparisons(folder)
        else:
            yield from self._remote_code_comparisons(folder)

    def _stock_comparisons(self, folder: Path) -> Iterator[Comparison]:
        model = self._load(folder, trust_remote_code=self.base.trust_remote_code)
        vectors = self._sample_vectors()
        tail = nn.Sequential(*list(model.children())[len(self.base) :])
        adapted = tail({"sentence_embedding": vectors.to(model.device, model.dtype)})["sentence_embedding"]
        yield Comparison(self.level, "Dense modules", adapted, self._adapt(vectors, self.level))
        yield Comparison(
            self.level, "SentenceTransformer", _encode(model), self._adapt(_encode(self.base), self.level)
        )

    def _remote_code_comparisons(self, folder: Path) -> Iterator[Comparison]:
        # Not AutoModel: where this package is imported it takes our own class, and the repo's code stays untried.
        code = f"{MatryoshkaAdaptorModel.__module__.rpartition('.')[2]}.{MatryoshkaAdaptorModel.__name__}"
        repo_class = get_class_from_dynamic_module(code, str(folder))
        adaptor = repo_class.from_pretrained(folder)
        levels = self.levels("remote_code")
        if list(adaptor.config.levels) != levels:
            raise ValueError(f"it serves the levels {', '.join(adaptor.config.levels)}, not {', '.join(levels)}")
        vectors = self._sample_vectors()
        for level in levels:
            actual = adaptor(vectors.to(adaptor.dtype), level=level).embeddings
            yield Comparison(level, "AutoModel", actual, self._adapt(vectors, level))
        if self.shard_by_level:
            for level in levels:
                small = repo_class.from_pretrained(folder, level=level)
                actual = small(vectors.to(small.dtype)).embeddings
                yield Comparison(level, "AutoModel of one level", actual, self._adapt(vectors, level))
        if self.base is None:
            return
        model = self._load(folder, trust_remote_code=True)
        embeddings = _encode(self.base)
        yield Comparison(levels[-1], "SentenceTransformer", _encode(model), self._adapt(embeddings, levels[-1]))
        for level in levels:
            actual = _encode(model, matryoshka_dim=self.dim(level))
            yield Comparison(level, "SentenceTransformer", actual, self._adapt(embeddings, level))

    def onnx_model(self, form: str, folder: Path) -> SentenceTransformer | MatryoshkaAdaptorModel:
        if self.base is None:
            return self._trained
        return self._load(folder, trust_remote_code=form == "remote_code" or self.base.trust_remote_code)

    def onnx_dims(self, form: str) -> list[int]:
        return [self.dim(level) for level in self.levels(form)]

    @property
    def dtypes(self) -> set[torch.dtype]:
        return {self._trained.dtype} if self.base is None else {self._trained.dtype, self.base.dtype}

    def dim(self, level: str) -> int:
        return self.model.config.level_dim(level)

    def card_fields(self, form: str) -> dict[str, Any]:
        config = self.model.config
        return {
            "kind": config.kind,
            "embedding_dim": config.embedding_dim,
            "with_base": self.base is not None,
            "base_remote_code": self.base is not None and self.base.trust_remote_code,
        }

    def _load(self, folder: Path, trust_remote_code: bool) -> SentenceTransformer:
        return SentenceTransformer(
            str(folder), device=str(self.base.device), trust_remote_code=trust_remote_code, local_files_only=True
        )

    def _sample_vectors(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return F.normalize(torch.randn(64, self.model.config.embedding_dim, generator=generator), dim=-1)

    def _adapt(self, vectors: torch.Tensor, level: str) -> torch.Tensor:
        return self._trained(vectors.to(self._trained.dtype), level=level).embeddings


def load_base(
    base_model: SentenceTransformer | str | os.PathLike | None, model: MatryoshkaAdaptorModel
) -> SentenceTransformer | None:
    """The base model, loaded if it is a folder.

    Raises:
        FileNotFoundError: If it is a path but no folder.
        ValueError: If its embeddings do not have the adaptor's width.
    """
    if base_model is None:
        return None
    if not isinstance(base_model, SentenceTransformer):
        if not Path(base_model).is_dir():
            raise FileNotFoundError(
                f"base_model {base_model} is not a folder; give a saved SentenceTransformer or a loaded one"
            )
        base_model = SentenceTransformer(str(base_model), device="cpu", local_files_only=True)
    if base_model.truncate_dim is not None:
        raise ValueError(
            f"base_model has truncate_dim={base_model.truncate_dim}, which an export cannot hold between its modules; "
            "load it without"
        )
    width = base_model.get_embedding_dimension()
    if width not in (None, model.config.embedding_dim):
        raise ValueError(
            f"base_model gives embeddings of width {width}, but the adaptor takes {model.config.embedding_dim}"
        )
    return base_model


def _encode(model: SentenceTransformer, **kwargs) -> torch.Tensor:
    return model.encode(list(SAMPLE_TEXTS), convert_to_tensor=True, show_progress_bar=False, **kwargs).cpu()
