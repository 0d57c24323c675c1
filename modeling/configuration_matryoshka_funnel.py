"""Configuration of the Matryoshka funnel."""

from typing import Self

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .levels import DimLevelsMixin, check_above_zero, check_at_least, check_matryoshka_dims, resolve_matryoshka_dim


AUTO_MAP = {
    "AutoConfig": "configuration_matryoshka_funnel.MatryoshkaFunnelConfig",
    "AutoModel": "modeling_matryoshka_funnel.MatryoshkaFunnelModel",
}
KINDS = ("residual", "cascade", "flow")
GEOMETRIES = ("sphere", "euclidean")
# Three ways of embedding a text with GTR-T5-base whose vectors have nothing to do with each other: mean of the tokens
# as it is, which vec2text reads; the whole SentenceTransformer, with its dense layer; the mean brought to unit length.
EMBEDDING_CONVENTIONS = ("raw_mean", "st_dense_norm", "mean_norm")
DEFAULT_DIMS = (16, 32, 48, 64, 80, 96, 112, 128)

# The published shape of the first cascading funnel, whose text says 16M parameters and which has 5,676,896; and one
# with 16,141,152.
PRESETS = {
    "original": {"kind": "cascade", "encoder_sizes": [512, 256], "decoder_sizes": [256, 512]},
    "original_16m": {"kind": "cascade", "encoder_sizes": [1280, 512], "decoder_sizes": [512, 1280]},
}


@strict
class MatryoshkaFunnelConfig(DimLevelsMixin, PreTrainedConfig):
    r"""
    Configuration of a [`MatryoshkaFunnelModel`]: embeddings in, a short latent in stages out, and back from the first
    stages alone.

    Args:
        embedding_dim (`int`, *optional*, defaults to 768):
            Width of the embeddings.
        matryoshka_dims (`list[int]`, *optional*):
            Widths of the latent after each stage, the levels, strictly increasing; 16, 32, ..., 128 by default, as far
            as they are narrower than the embeddings.
        stage_dims (`list[int]`, *optional*):
            Widths of all stages that a latent is completed to before it is decoded; begins with `matryoshka_dims`,
            which it is by default. A level that was cut out of a `"cascade"` or `"flow"` keeps all of them.
        kind (`str`, *optional*, defaults to `"residual"`):
            `"residual"`: principal components plus networks that start at zero, so that it starts as PCA.
            `"cascade"`: the encoder of a stage sees the embedding and the stages before; predictors complete the
            latent, which one decoder reads. `"flow"`: one bijection of the embeddings, whose leading coordinates are
            the latent; the predictors and the decoder are the conditional densities of the rest, so the density of
            embeddings, and of each prefix of the latent, is exact (Klein et al., "Funnels", arXiv 2112.08069).
        encoder_sizes, predictor_sizes, decoder_sizes (`list[int]`, *optional*):
            Hidden widths of the networks; each is a linear layer, layer norm and GELU. By default `[1024]`,
            `[256, 256]` and `[1024, 1024]`.
        num_couplings (`int`, *optional*, defaults to 6):
            Affine couplings of the bijection of `"flow"`.
        coupling_sizes (`list[int]`, *optional*, defaults to `[512]`):
            Hidden widths of the network of each.
        intrinsic_dim (`int`, *optional*):
            Dimensions of the flat space of `"flow"`, for embeddings that fill fewer than they have; by default all, on
            the sphere one less.
        geometry (`str`, *optional*, defaults to `"sphere"`):
            `"sphere"`: only the direction of an embedding counts; decoded vectors have the length `embedding_norm`.
            `"euclidean"`: any vectors.
        embedding_norm (`float`, *optional*, defaults to 1.0):
            Length of decoded vectors on the sphere: that of the embeddings trained on, on average.
        embedding_convention (`str`, *optional*):
            How texts were embedded, where one model has several ways: `"raw_mean"`, `"st_dense_norm"` or
            `"mean_norm"`. By default as the SentenceTransformer does.
        base_model (`str`, *optional*):
            Name of the model whose embeddings the funnel was trained on.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the random initial weights.
    """

    model_type = "matryoshka_funnel"

    embedding_dim: int = 768
    matryoshka_dims: list[int] | tuple[int, ...] | None = None
    stage_dims: list[int] | tuple[int, ...] | None = None
    kind: str = "residual"
    encoder_sizes: list[int] | tuple[int, ...] = (1024,)
    predictor_sizes: list[int] | tuple[int, ...] = (256, 256)
    decoder_sizes: list[int] | tuple[int, ...] = (1024, 1024)
    num_couplings: int = 6
    coupling_sizes: list[int] | tuple[int, ...] = (512,)
    intrinsic_dim: int | None = None
    geometry: str = "sphere"
    embedding_norm: float | int = 1.0
    embedding_convention: str | None = None
    base_model: str | None = None
    initializer_range: float | int = 0.02

    def __post_init__(self, **kwargs):
        if self.matryoshka_dims is None:
            narrower = [dim for dim in DEFAULT_DIMS if dim < self.embedding_dim]
            self.matryoshka_dims = narrower or [max(1, self.embedding_dim - 1)]
        if self.stage_dims is None:
            self.stage_dims = self.matryoshka_dims
        for name in ("matryoshka_dims", "stage_dims", "encoder_sizes", "predictor_sizes", "decoder_sizes"):
            setattr(self, name, list(getattr(self, name)))
        self.coupling_sizes = list(self.coupling_sizes)
        # `save_pretrained` writes only the class that is saved; every AutoClass must work from every saved folder.
        kwargs["auto_map"] = {**AUTO_MAP, **(kwargs.get("auto_map") or {})}
        super().__post_init__(**kwargs)

    @classmethod
    def from_preset(cls, name: str, **options) -> "MatryoshkaFunnelConfig":
        """The config of a published shape, with further `options`.

        Raises:
            ValueError: If there is no such preset.
        """
        if name not in PRESETS:
            raise ValueError(f"preset {name!r} does not exist; choose one of {', '.join(PRESETS)}")
        return cls(**{**PRESETS[name], **options})

    @property
    def latent_dim(self) -> int:
        """Width of the latent at the largest level."""
        return self.matryoshka_dims[-1]

    @property
    def flat_dim(self) -> int:
        """Dimensions of the space that a latent is a part of."""
        if self.intrinsic_dim is not None:
            return self.intrinsic_dim
        # The directions of vectors have one dimension less than the vectors.
        return self.embedding_dim - (self.kind == "flow" and self.geometry == "sphere")

    def stage_of(self, active_dim: int | None) -> int:
        """Number, from 0, of the level with a latent of this width; of the largest for `None`.

        Raises:
            ValueError: If no stage ends there; the message lists the stages.
        """
        try:
            return self.matryoshka_dims.index(resolve_matryoshka_dim(self.matryoshka_dims, active_dim))
        except ValueError:
            stages = ", ".join(map(str, self.matryoshka_dims))
            raise ValueError(f"active_dim {active_dim} is the end of no stage; choose one of {stages}") from None

    def cut(self, level: int | str | None = None) -> Self:
        """Config of a level as a model of its own; one that completes its latent keeps the stages that it completes.

        Raises:
            ValueError: If the level does not exist.
        """
        config = super().cut(level)
        if self.kind == "residual":
            config.stage_dims = config.matryoshka_dims
        return config

    def validate_choices(self) -> None:
        for name, choices in (("kind", KINDS), ("geometry", GEOMETRIES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} {getattr(self, name)!r} does not exist; choose one of {', '.join(choices)}")
        if self.embedding_convention not in (None, *EMBEDDING_CONVENTIONS):
            raise ValueError(
                f"embedding_convention {self.embedding_convention!r} does not exist; choose one of "
                f"{', '.join(EMBEDDING_CONVENTIONS)}, or none"
            )

    def validate_sizes(self) -> None:
        for name in ("encoder_sizes", "predictor_sizes", "decoder_sizes", "coupling_sizes"):
            if any(size < 1 for size in getattr(self, name)):
                raise ValueError(f"{name} must be positive, but is {getattr(self, name)}")
        check_at_least(1, num_couplings=self.num_couplings)
        check_above_zero(embedding_norm=self.embedding_norm)
        check_at_least(0, initializer_range=self.initializer_range)

    def validate_dims(self) -> None:
        check_at_least(2, embedding_dim=self.embedding_dim)
        most = self.embedding_dim - (self.geometry == "sphere")
        if self.intrinsic_dim is not None and (self.kind != "flow" or not 2 <= self.intrinsic_dim <= most):
            raise ValueError(
                f"intrinsic_dim is {self.intrinsic_dim}, but only a funnel of kind 'flow' has one, from 2 to {most}"
            )
        check_matryoshka_dims(self.matryoshka_dims)
        check_matryoshka_dims(self.stage_dims, "stage_dims")
        if self.stage_dims[: len(self.matryoshka_dims)] != self.matryoshka_dims:
            raise ValueError(
                f"stage_dims {self.stage_dims} does not begin with matryoshka_dims {self.matryoshka_dims}"
            )
        if self.kind == "residual" and self.stage_dims != self.matryoshka_dims:
            raise ValueError("a funnel of kind 'residual' completes no latent; leave stage_dims out")
        if self.stage_dims[-1] > self.flat_dim:
            raise ValueError(
                f"the stages of stage_dims end at {self.stage_dims[-1]}, but only {self.flat_dim} dimensions can be "
                "encoded"
            )


MatryoshkaFunnelConfig.register_for_auto_class()

__all__ = ["EMBEDDING_CONVENTIONS", "MatryoshkaFunnelConfig"]
