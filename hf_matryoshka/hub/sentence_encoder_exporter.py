"""Exports of a sentence-embedding model whose encoder is nested."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn
from transformers import PreTrainedModel

from ..modeling.configuration_matryoshka_mamba import MatryoshkaMambaConfig
from ..modeling.st_matryoshka_truncate import MatryoshkaTruncate
from ..modeling.st_nested_transformer import transformer_around
from .level_exporter import SAMPLE_TEXTS, Comparison
from .model_exporter import ModelExporter, unused
from .self_contained import save_self_contained


class SentenceEncoderExporter(ModelExporter):
    """One level of a `SentenceTransformer` whose first module is a [`NestedTransformer`].

    A *stock* repo is `Transformer`, `Pooling`, whatever else the model has, and `Normalize`. A *remote-code* repo is
    the model with the levels up to this one. `AutoModel` loads the encoder of either.

    Args:
        encoder (`SentenceTransformer`): The model, on the CPU and in evaluation mode; see [`check_sentence_encoder`].
        level (`int`, `str` or `None`): See [`LevelExporter`].
        shard_by_level (`bool`, *optional*, defaults to `False`): Whether a repo of several levels has its weights in
            one shard a level.
    """

    template = "sentence_encoder.md"

    def __init__(self, encoder: SentenceTransformer, level: int | str | None, shard_by_level: bool = False):
        super().__init__(encoder[0].model, level, encoder.tokenizer, shard_by_level)
        self.encoder = encoder

    def _writer(self, form: str) -> Callable[[Path], None]:
        nested = form == "remote_code"
        if nested:
            small = self._trained if self.full else self._trained.cut(self.level)
        else:
            _check_stock(self.encoder)
            small = self._trained.to_stock(self.level, padded=form == "stock_padded")

        def write(folder: Path) -> None:
            save_self_contained(self._around(small, nested), folder)
            if nested and self.shard_by_level:
                small.save_pretrained(folder, shard_by_level=True)

        return write

    def _around(self, small: PreTrainedModel, nested: bool) -> SentenceTransformer:
        """The model with another encoder; the modules after it are made for its width."""
        first, *rest = self.encoder.children()
        around = transformer_around(small, first, type(first) if nested else Transformer)
        around.processor = unused(first.processor)
        model = self._sequence([around])
        for module in rest:
            if isinstance(module, Pooling):
                modules = [Pooling(small.config.hidden_size, module.pooling_mode, module.include_prompt)]
            elif _is_truncation(module):
                modules = _truncation(module, model.get_embedding_dimension(), nested)
            else:
                modules = [module]
            model = self._sequence([*model.children(), *modules])
        return model

    def _sequence(self, modules: list[nn.Module]) -> SentenceTransformer:
        model = SentenceTransformer(
            modules=modules,
            device="cpu",
            prompts=self.encoder.prompts,
            default_prompt_name=self.encoder.default_prompt_name,
            similarity_fn_name=self.encoder.similarity_fn_name,
        )
        return model.eval()

    def comparisons(self, form: str, folder: Path) -> Iterator[Comparison]:
        yield from super().comparisons(form, folder)
        nested, levels = form == "remote_code", self.levels(form)
        model = self._load(form, folder)
        if model.max_seq_length != self.encoder.max_seq_length:
            raise ValueError(
                f"it cuts texts at {model.max_seq_length} tokens, the trained model at {self.encoder.max_seq_length}"
            )
        for level in levels:
            kwargs = {"level": level} if nested else {}
            for batch_size in (len(SAMPLE_TEXTS), 1):
                actual = _encode(model, batch_size=batch_size, **kwargs)
                yield Comparison(level, "SentenceTransformer", actual, self._expected(level))
            for dim in self.matryoshka_dims(level):
                kwargs |= {"matryoshka_dim": dim} if nested else {"truncate_dim": dim, "normalize_embeddings": True}
                actual = _encode(model, **kwargs)
                expected = self._expected(level, matryoshka_dim=dim)
                yield Comparison(level, f"SentenceTransformer of {dim} dimensions", actual, expected)
        default = self._default_level(levels[-1]) if nested else levels[-1]
        for prompt in [None, *(name for name, text in self.encoder.prompts.items() if text)]:
            expected = self._expected(default, prompt_name=prompt)
            yield Comparison(default, "SentenceTransformer", _encode(model, prompt_name=prompt), expected)

    def _load(self, form: str, folder: Path) -> SentenceTransformer:
        return SentenceTransformer(
            str(folder), device="cpu", trust_remote_code=form == "remote_code", local_files_only=True
        )

    def _expected(self, level: str, **kwargs) -> torch.Tensor:
        return _encode(self.encoder, level=level, **kwargs)

    def onnx_model(self, form: str, folder: Path) -> SentenceTransformer:
        return self._load(form, folder)

    def onnx_dims(self, form: str) -> list[int]:
        return sorted({*self.matryoshka_dims(self.level), self.dim(self.level)})

    def dim(self, level: str) -> int:
        return _encode(self.encoder, texts=SAMPLE_TEXTS[:1], level=level).shape[-1]

    def matryoshka_dims(self, level: str | None = None) -> list[int]:
        dims = [dim for module in self.encoder if _is_truncation(module) for dim in module.matryoshka_dims]
        return dims if level is None else [dim for dim in dims if dim <= self.dim(level)]

    def cost(self, level: str) -> dict[str, float]:
        return {**super().cost(level), "bytes_per_vector": 4 * self.dim(level)}

    def card_fields(self, form: str) -> dict[str, Any]:
        return {
            "auto_class": "AutoModel",
            "with_base": True,
            "embedding_dim": self.dim(self.level),
            "matryoshka_dims": self.matryoshka_dims(self.level),
        }


def check_sentence_encoder(model: SentenceTransformer) -> None:
    """Raise `ValueError` unless an export can hold a model: a nested encoder first, and no `truncate_dim`."""
    first = model[0]
    if not isinstance(first, Transformer) or not hasattr(first.model.config, "levels"):
        found = type(first.model if isinstance(first, Transformer) else first).__name__
        raise ValueError(
            f"the model starts with a {found}, which has no levels; make it nested with nest_sentence_encoder and "
            "train it, or train an adaptor for its embeddings"
        )
    if first.model.config.model_type == MatryoshkaMambaConfig.model_type and "level" not in first.forward_kwargs:
        raise ValueError(
            "the model takes the tokens of a MatryoshkaMambaModel, which pools them by itself; build it with "
            "mamba_sentence_encoder"
        )
    if model.truncate_dim is not None:
        raise ValueError(
            f"the model has truncate_dim={model.truncate_dim}, which an export cannot hold; load it without"
        )


def _check_stock(encoder: SentenceTransformer) -> None:
    for module in list(encoder)[1:]:
        if not _is_truncation(module) and not type(module).__module__.startswith("sentence_transformers."):
            raise ValueError(
                f"its module {type(module).__name__} is none of sentence-transformers, so it comes with its code"
            )


def _is_truncation(module: nn.Module) -> bool:
    # By name: a module from a repo is of a class of its own.
    return type(module).__name__ == MatryoshkaTruncate.__name__


def _truncation(module: nn.Module, width: int, nested: bool) -> list[nn.Module]:
    """A [`MatryoshkaTruncate`] behind embeddings of a width, or stock modules that do what it does by default."""
    dims = [dim for dim in module.matryoshka_dims if dim <= width]
    if not dims:
        raise ValueError(
            f"its embeddings have width {width}, but the smallest of matryoshka_dims is {module.matryoshka_dims[0]}"
        )
    dim = max(dim for dim in dims if dim <= module.matryoshka_dim)
    if nested:
        return [type(module)(dims, dim)]
    if dim == width:
        return [Normalize()]
    leading = Dense(width, dim, bias=False, activation_function=nn.Identity(), init_weight=torch.eye(dim, width))
    return [leading, Normalize()]


def _encode(model: SentenceTransformer, texts: Sequence[str] = SAMPLE_TEXTS, **kwargs) -> torch.Tensor:
    return model.encode(list(texts), convert_to_tensor=True, show_progress_bar=False, **kwargs).cpu()
