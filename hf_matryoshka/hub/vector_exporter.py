"""Exports of a nested model of embeddings: alone, or behind the base model whose embeddings it takes."""

import copy
import os
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from sentence_transformers import SentenceTransformer
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from ..data.convention_encoders import detect_convention, with_convention
from ..data.embedding_conventions import check_convention
from ..modeling.st_vector_module import NestedVectorModule
from .level_exporter import SAMPLE_TEXTS, Comparison, LevelExporter, on_cpu
from .self_contained import save_module_in_root


class VectorExporter(LevelExporter):
    """One level of a nested model of embeddings.

    A *remote-code* repo is that of the model, with the base model, if there is one, in sub-folders.

    Args:
        model (`PreTrainedModel`): The trained model.
        level (`int`, `str` or `None`): See [`LevelExporter`].
        base (`SentenceTransformer`, *optional*): The base model, see [`load_base`].
        shard_by_level (`bool`, *optional*, defaults to `False`): Whether a repo of several levels has its weights in
            one shard a level.
    """

    # The module of sentence-transformers around the model.
    module_class: ClassVar[type[NestedVectorModule]]
    # What `encode` of a `SentenceTransformer` is asked for each output of `outputs`.
    encode_kwargs: ClassVar[dict[str, dict[str, Any]]]

    def __init__(
        self,
        model: PreTrainedModel,
        level: int | str | None,
        base: SentenceTransformer | None = None,
        shard_by_level: bool = False,
    ):
        super().__init__(model, level)
        self.base = base
        self.inputs = "embeddings" if base is None else "text"
        self.shard_by_level = shard_by_level
        self._trained = on_cpu(model)

    @abstractmethod
    def outputs(self, model: PreTrainedModel, vectors: torch.Tensor, level: str | None) -> dict[str, torch.Tensor]:
        """Everything that a level of a model, trained or loaded, makes of embeddings, by name."""

    def _remote_code_writer(self) -> Callable[[Path], None]:
        model = copy.deepcopy(self._trained) if self.full else self._trained.cut(self.level)
        model.config.base_model = hub_id(model.config.base_model)
        return lambda folder: self._write_remote_code(model, folder)

    def _write_remote_code(self, model: PreTrainedModel, folder: Path) -> None:
        if self.base is not None:
            save_module_in_root(self.base, self.module_class(model), folder)
        if self.base is None or self.shard_by_level:
            model.save_pretrained(folder, shard_by_level=self.shard_by_level)

    def comparisons(self, form: str, folder: Path) -> Iterator[Comparison]:
        # Not AutoModel: where this package is imported it takes our own class, and the repo's code stays untried.
        model_class = self.module_class.model_class
        code = f"{model_class.__module__.rpartition('.')[2]}.{model_class.__name__}"
        repo_class = get_class_from_dynamic_module(code, str(folder))
        model = repo_class.from_pretrained(folder)
        levels = self.levels("remote_code")
        if list(model.config.levels) != levels:
            raise ValueError(f"it serves the levels {', '.join(model.config.levels)}, not {', '.join(levels)}")
        vectors = self._sample_vectors()
        for level in levels:
            yield from self._compare("AutoModel", model, vectors, level, level)
        if self.shard_by_level:
            for level in levels:
                small = repo_class.from_pretrained(folder, level=level)
                yield from self._compare("AutoModel of one level", small, vectors, level, None)
        if self.base is not None:
            yield from self._text_comparisons(folder, levels)

    def _compare(
        self, what: str, model: PreTrainedModel, vectors: torch.Tensor, level: str, asked: str | None
    ) -> Iterator[Comparison]:
        expected = self.expected(vectors, level)
        for name, actual in self.outputs(model, vectors.to(model.dtype), asked).items():
            yield Comparison(level, f"{what}, {name}", actual, expected[name])

    def _text_comparisons(self, folder: Path, levels: list[str]) -> Iterator[Comparison]:
        model, embeddings = self.load(folder, trust_remote_code=True), encode_samples(self.base)
        for name, kwargs in self.encode_kwargs.items():
            what = f"SentenceTransformer, {name}"
            default = self.expected(embeddings, levels[-1])[name]
            yield Comparison(levels[-1], what, encode_samples(model, **kwargs), default)
            for level in levels:
                actual = encode_samples(model, matryoshka_dim=self.dim(level), **kwargs)
                yield Comparison(level, what, actual, self.expected(embeddings, level)[name])

    def expected(self, vectors: torch.Tensor, level: str) -> dict[str, torch.Tensor]:
        """What the trained model makes of embeddings."""
        return self.outputs(self._trained, vectors.to(self._trained.dtype), level)

    def load(self, folder: Path, trust_remote_code: bool) -> SentenceTransformer:
        """The repo as users of sentence-transformers load it."""
        return SentenceTransformer(
            str(folder), device=str(self.base.device), trust_remote_code=trust_remote_code, local_files_only=True
        )

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
        }

    def _sample_vectors(self) -> torch.Tensor:
        """Embeddings that are run through what was written and through the trained model."""
        generator = torch.Generator().manual_seed(0)
        return F.normalize(torch.randn(64, self.model.config.embedding_dim, generator=generator), dim=-1)


def load_base(
    base_model: SentenceTransformer | str | os.PathLike | None, model: PreTrainedModel, convention: str | None = None
) -> SentenceTransformer | None:
    """The base model, loaded if it is a folder.

    Args:
        base_model (`SentenceTransformer`, `str` or `os.PathLike`, *optional*): The base model or its folder.
        model (`PreTrainedModel`): The nested model that takes its embeddings.
        convention (`str`, *optional*): The embedding convention that it must follow. A folder is loaded with the
            modules of that convention; a model that was loaded by the caller is taken or refused as it is.

    Raises:
        FileNotFoundError: If it is a path but no folder.
        ValueError: If its embeddings do not have the width or the convention that the nested model takes.
    """
    if base_model is None:
        return None
    loaded = isinstance(base_model, SentenceTransformer)
    if not loaded:
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
    if loaded:
        check_convention(convention, detect_convention(base_model), what="the embeddings of base_model")
    else:
        base_model = with_convention(base_model, convention)
    width, kind = base_model.get_embedding_dimension(), model.config.model_type.rpartition("_")[2]
    if width not in (None, model.config.embedding_dim):
        raise ValueError(
            f"base_model gives embeddings of width {width}, but the {kind} takes {model.config.embedding_dim}"
        )
    return base_model


def hub_id(name: str | None) -> str | None:
    """The name of a model unless it is a path, which means nothing to the users of a repo."""
    if name is None or Path(name).exists() or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        return None
    return name


def encode_samples(model: SentenceTransformer, **kwargs) -> torch.Tensor:
    """What a model makes of the sample texts, on the CPU."""
    return model.encode(list(SAMPLE_TEXTS), convert_to_tensor=True, show_progress_bar=False, **kwargs).cpu()
