"""Configuration of the Matryoshka-Adaptor."""

from typing import Self

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .levels import (
    DimLevelsMixin,
    check_above_zero,
    check_activation,
    check_at_least,
    check_matryoshka_dims,
    default_matryoshka_dims,
)


AUTO_MAP = {
    "AutoConfig": "configuration_matryoshka_adaptor.MatryoshkaAdaptorConfig",
    "AutoModel": "modeling_matryoshka_adaptor.MatryoshkaAdaptorModel",
}
KINDS = ("mlp", "linear", "orthogonal", "permutation")


@strict
class MatryoshkaAdaptorConfig(DimLevelsMixin, PreTrainedConfig):
    r"""
    Configuration of a [`MatryoshkaAdaptorModel`]: a small map from an embedding to one whose every listed prefix is
    a good embedding by itself (Matryoshka-Adaptor, arXiv 2407.20243).

    Args:
        embedding_dim (`int`, *optional*, defaults to 384):
            Width of the embeddings that go in.
        matryoshka_dims (`list[int]`, *optional*):
            Trained prefix widths, strictly increasing; the last is the width that comes out. By default log-spaced
            from 16 to `embedding_dim`.
        kind (`str`, *optional*, defaults to `"mlp"`):
            `"mlp"`: `S x + W2 act(W1 x + b1) + b2`, the paper's adaptor with its skip connection (`S` the identity).
            `"linear"`: `W x`. `"orthogonal"`: a product of Householder reflections, which leaves full-width inner
            products unchanged. `"permutation"`: a learned order of the coordinates.
        intermediate_size (`int`, *optional*):
            Hidden width of `"mlp"`; by default twice `embedding_dim`.
        hidden_act (`str`, *optional*, defaults to `"relu"`):
            Activation of `"mlp"`. Only with `"relu"` is a stock sentence-transformers export exact.
        projection (`bool`, *optional*, defaults to `False`):
            `"mlp"`: the skip connection `S` is a full matrix, as set by SVD initialisation. `"orthogonal"`: a fixed
            rotation comes before the trained reflections. The other kinds do not use it.
        num_reflections (`int`, *optional*, defaults to 32):
            Number of Householder reflections of `"orthogonal"`; even, so that pairs can start as the identity.
        sort_temperature (`float`, *optional*, defaults to 1.0):
            Temperature of the relaxed sort that trains `"permutation"` (NeuralSort, arXiv 1903.08850).
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the random initial weights.
        base_model (`str`, *optional*):
            Name of the model whose embeddings the adaptor was trained on.
    """

    model_type = "matryoshka_adaptor"

    embedding_dim: int = 384
    matryoshka_dims: list[int] | tuple[int, ...] | None = None
    kind: str = "mlp"
    intermediate_size: int | None = None
    hidden_act: str = "relu"
    projection: bool = False
    num_reflections: int = 32
    sort_temperature: float | int = 1.0
    initializer_range: float | int = 0.02
    base_model: str | None = None

    def __post_init__(self, **kwargs):
        if self.matryoshka_dims is None:
            self.matryoshka_dims = default_matryoshka_dims(self.embedding_dim)
        self.matryoshka_dims = list(self.matryoshka_dims)
        if self.intermediate_size is None:
            self.intermediate_size = 2 * self.embedding_dim
        # `save_pretrained` writes only the class that is saved; every AutoClass must work from every saved folder.
        kwargs["auto_map"] = {**AUTO_MAP, **(kwargs.get("auto_map") or {})}
        super().__post_init__(**kwargs)

    @property
    def output_dim(self) -> int:
        """Width of the largest level."""
        return self.matryoshka_dims[-1]

    def cut(self, level: int | str | None = None) -> Self:
        """Config of a level as a model of its own; an orthogonal adaptor below its full width is a `"linear"` one.

        Raises:
            ValueError: If the level does not exist.
        """
        config = super().cut(level)
        if self.kind == "orthogonal" and config.output_dim < self.embedding_dim:
            config.kind, config.projection = "linear", False
        return config

    def validate_kind(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r} does not exist; choose one of {', '.join(KINDS)}")
        if self.kind == "orthogonal" and (self.num_reflections < 2 or self.num_reflections % 2):
            raise ValueError(f"num_reflections must be even and at least 2, but is {self.num_reflections}")
        if self.kind == "orthogonal" and self.output_dim != self.embedding_dim:
            raise ValueError(
                f"an orthogonal adaptor keeps the full width {self.embedding_dim}, but matryoshka_dims ends at "
                f"{self.output_dim}; use kind 'linear' for fewer outputs"
            )

    def validate_numbers(self) -> None:
        check_at_least(1, intermediate_size=self.intermediate_size)
        check_at_least(0, initializer_range=self.initializer_range)
        check_above_zero(sort_temperature=self.sort_temperature)
        check_activation(hidden_act=self.hidden_act)

    def validate_dims(self) -> None:
        check_at_least(1, embedding_dim=self.embedding_dim)
        check_matryoshka_dims(self.matryoshka_dims)
        if self.output_dim > self.embedding_dim:
            raise ValueError(
                f"matryoshka_dims ends at {self.output_dim}, but the embeddings have {self.embedding_dim} dimensions"
            )


MatryoshkaAdaptorConfig.register_for_auto_class()

__all__ = ["MatryoshkaAdaptorConfig"]
