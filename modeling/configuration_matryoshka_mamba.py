"""Configuration of the Matryoshka Mamba encoder."""

import copy

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .levels import (
    LevelsMixin,
    check_above_zero,
    check_at_least,
    check_matryoshka_dims,
    check_probabilities,
    resolve_matryoshka_dim,
)


AUTO_MAP = {
    "AutoConfig": "configuration_matryoshka_mamba.MatryoshkaMambaConfig",
    "AutoModel": "modeling_matryoshka_mamba.MatryoshkaMambaModel",
}
DIRECTIONS = ("causal", "bidirectional", "block_bidirectional")
DEFAULT_DIMS = (64, 128, 256, 512, 768, 1024, 1536)
DEFAULT_WIDTHS = (0.25, 0.5, 1.0)


@strict
class MatryoshkaMambaConfig(LevelsMixin, PreTrainedConfig):
    r"""
    Configuration of a [`MatryoshkaMambaModel`]: a text encoder of Mamba-2 blocks (arXiv 2405.21060), nested in width
    as MatMamba (arXiv 2410.06718) and in output dimension.

    Args:
        vocab_size (`int`, *optional*, defaults to 30522):
            Entries of the vocabulary.
        hidden_size (`int`, *optional*, defaults to 384):
            Width of the residual stream, the same at all levels.
        num_hidden_layers (`int`, *optional*, defaults to 6):
            Blocks, each a Mamba-2 mixer and a SwiGLU network.
        head_dim (`int`, *optional*, defaults to 64):
            Channels of a head.
        num_heads (`int`, *optional*):
            Heads of the mixer; by default `expand * hidden_size / head_dim`.
        expand (`int`, *optional*, defaults to 2):
            Channels of all heads, as a multiple of the hidden size.
        state_size (`int`, *optional*, defaults to 64):
            State of a channel.
        conv_kernel (`int`, *optional*, defaults to 4):
            Tokens that the convolution before the scan sees.
        intermediate_size (`int`, *optional*):
            Columns of the SwiGLU network, twice the hidden size by default; 0 for blocks without one.
        hidden_dropout_prob (`float`, *optional*, defaults to 0.1):
            Dropout of what a mixer or a network adds to the residual stream.
        direction (`str`, *optional*, defaults to `"causal"`):
            `"causal"`: a token sees those before it, so that texts can be streamed. `"bidirectional"`: a second scan
            of the same projections runs from the end (arXiv 2403.03234). `"block_bidirectional"`: that scan sees to
            the end of a block of `block_size` tokens only, so that texts can be streamed block by block.
        block_size (`int`, *optional*, defaults to 256):
            Tokens of such a block.
        widths (`list[float]`, *optional*):
            The levels, smallest first: shares of the heads and of the SwiGLU columns, the last 1. By default one head,
            a quarter, half and all, as far as these are whole numbers of heads.
        matryoshka_dims (`list[int]`, *optional*):
            Output dimensions, strictly increasing; by default 64, 128, 256, 512, 768, 1024 and 1536.
        dim_widths (`list[float]`, *optional*):
            For each output dimension the width that computes it where no level is asked for, so that a small embedding
            is also a fast one. It is then no prefix of a larger one. By default the full width.
        chunk_size (`int`, *optional*, defaults to 64):
            Tokens that the scan takes at once.
        segment_length (`int`, *optional*, defaults to 512):
            Longer texts go through all blocks segment by segment with carried states, in constant memory (not with
            `direction="bidirectional"`); a multiple of `block_size` with `"block_bidirectional"`.
        full_num_heads, full_intermediate_size (`int`, *optional*):
            What a width of 1 stands for, in a model that was cut; otherwise those of the model.
        layer_norm_epsilon (`float`, *optional*, defaults to 1e-5):
            Of the RMS norms.
        initializer_range (`float`, *optional*):
            Standard deviation of random weights; by default `0.02 * (768 / hidden_size)**0.5`.
        time_step_min, time_step_max, time_step_floor (`float`, *optional*, defaults to 0.001, 0.1 and 0.0001):
            Step sizes that the biases start from.
        pad_token_id (`int`, *optional*, defaults to 0):
            Id of the padding token.
    """

    model_type = "matryoshka_mamba"

    vocab_size: int = 30522
    hidden_size: int = 384
    num_hidden_layers: int = 6
    head_dim: int = 64
    num_heads: int | None = None
    expand: int = 2
    state_size: int = 64
    conv_kernel: int = 4
    intermediate_size: int | None = None
    hidden_dropout_prob: float | int = 0.1
    direction: str = "causal"
    block_size: int = 256
    widths: list[float | int] | tuple[float | int, ...] | None = None
    matryoshka_dims: list[int] | tuple[int, ...] = DEFAULT_DIMS
    dim_widths: list[float | int] | tuple[float | int, ...] | None = None
    chunk_size: int = 64
    segment_length: int = 512
    full_num_heads: int | None = None
    full_intermediate_size: int | None = None
    layer_norm_epsilon: float = 1e-5
    initializer_range: float | None = None
    time_step_min: float = 0.001
    time_step_max: float = 0.1
    time_step_floor: float = 1e-4
    pad_token_id: int | None = 0

    def __post_init__(self, **kwargs):
        self.validate_sizes()  # what is derived below rests on it
        if self.num_heads is None:
            self.num_heads = self.expand * self.hidden_size // self.head_dim
        if self.intermediate_size is None:
            self.intermediate_size = 2 * self.hidden_size
        if self.full_num_heads is None:
            self.full_num_heads = self.num_heads
        if self.full_intermediate_size is None:
            self.full_intermediate_size = self.intermediate_size
        if self.widths is None:
            self.validate_sizes()  # there may be less than one head
            shares = (1 / self.full_num_heads, *DEFAULT_WIDTHS)
            self.widths = sorted({share for share in shares if (share * self.full_num_heads).is_integer()})
        self.widths, self.matryoshka_dims = [float(width) for width in self.widths], list(self.matryoshka_dims)
        if self.dim_widths is not None:
            self.dim_widths = [float(width) for width in self.dim_widths]
        if self.initializer_range is None:
            self.initializer_range = 0.02 * (768 / self.hidden_size) ** 0.5
        # `save_pretrained` writes only the class that is saved; every AutoClass must work from every saved folder.
        kwargs["auto_map"] = {**AUTO_MAP, **(kwargs.get("auto_map") or {})}
        super().__post_init__(**kwargs)

    @property
    def levels(self) -> tuple[str, ...]:
        """Level names, `"w<share>"`, smallest first."""
        return tuple(f"w{round(width, 4)}" for width in self.widths)

    @property
    def bands(self) -> list[int]:
        """Dimensions that each entry of `matryoshka_dims` adds to the one before it."""
        return [dim - before for before, dim in zip([0, *self.matryoshka_dims], self.matryoshka_dims, strict=False)]

    def level_sizes(self, level: int | str | None = None) -> tuple[int, int]:
        """Heads and SwiGLU columns of a level.

        Raises:
            ValueError: If the level does not exist.
        """
        width = self.widths[self.level_index(level)]
        return round(width * self.full_num_heads), round(width * self.full_intermediate_size)

    def level_of_dim(self, matryoshka_dim: int | None = None) -> str:
        """The level that computes an output dimension where none is asked for.

        Raises:
            ValueError: If the dimension was not trained.
        """
        dim = resolve_matryoshka_dim(self.matryoshka_dims, matryoshka_dim)
        if self.dim_widths is None:
            return self.levels[-1]
        width = self.dim_widths[self.matryoshka_dims.index(dim)]
        # A model that was cut has fewer.
        return self.levels[min(index for index, own in enumerate(self.widths) if own >= min(width, self.widths[-1]))]

    def cut(self, level: int | str | None = None) -> "MatryoshkaMambaConfig":
        """Config of a level as a model of its own, whose levels are those up to this one.

        Raises:
            ValueError: If the level does not exist.
        """
        config, index = copy.deepcopy(self), self.level_index(level)
        config.num_heads, config.intermediate_size = self.level_sizes(index)
        config.widths = self.widths[: index + 1]
        return config

    def validate_sizes(self) -> None:
        names = ("vocab_size", "hidden_size", "num_hidden_layers", "head_dim", "num_heads", "expand", "state_size")
        names += ("conv_kernel", "chunk_size", "segment_length", "block_size", "full_num_heads")
        check_at_least(1, **{name: getattr(self, name) for name in names})
        names = ("intermediate_size", "full_intermediate_size", "initializer_range", "time_step_floor")
        check_at_least(0, **{name: getattr(self, name) for name in names})
        names = ("layer_norm_epsilon", "time_step_min", "time_step_max")
        check_above_zero(**{name: getattr(self, name) for name in names})
        check_probabilities(hidden_dropout_prob=self.hidden_dropout_prob)
        if self.time_step_max < self.time_step_min:
            raise ValueError(f"time_step_max {self.time_step_max} is less than time_step_min {self.time_step_min}")

    def validate_direction(self) -> None:
        if self.direction not in DIRECTIONS:
            raise ValueError(f"direction {self.direction!r} does not exist; choose one of {', '.join(DIRECTIONS)}")
        if self.direction == "block_bidirectional" and self.segment_length % self.block_size:
            raise ValueError(
                f"segment_length {self.segment_length} must be a multiple of block_size {self.block_size}"
            )

    def validate_nesting(self) -> None:
        check_matryoshka_dims(self.matryoshka_dims)
        if not self.widths or any(a >= b for a, b in zip(self.widths, self.widths[1:], strict=False)):
            raise ValueError(f"widths must be strictly increasing, but are {self.widths}")
        for width in self.widths:
            heads = width * self.full_num_heads
            if not 0 < width <= 1 or abs(heads - round(heads)) > 1e-3 or round(heads) < 1:
                raise ValueError(
                    f"widths do not fit num_heads: width {width} is {heads:g} of {self.full_num_heads} heads; give "
                    "shares up to 1 of whole heads"
                )
        if self.level_sizes() != (self.num_heads, self.intermediate_size):
            raise ValueError(f"the last of widths must be the full size, but widths are {self.widths}")
        if self.dim_widths is not None and len(self.dim_widths) != len(self.matryoshka_dims):
            raise ValueError(
                f"dim_widths has {len(self.dim_widths)} widths for {len(self.matryoshka_dims)} matryoshka_dims"
            )
        if self.dim_widths is not None and not all(0 < width <= 1 for width in self.dim_widths):
            raise ValueError(f"dim_widths must be above 0 and up to 1, but are {self.dim_widths}")


MatryoshkaMambaConfig.register_for_auto_class()

__all__ = ["MatryoshkaMambaConfig"]
