"""Configuration of the Matryoshka GPT."""

import copy
from dataclasses import dataclass

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .levels import (
    LevelsMixin,
    check_above_zero,
    check_activation,
    check_at_least,
    check_pad_token,
    check_probabilities,
)
from .nested_rope import ROPE_TYPES, largest_halving


AUTO_MAP = {
    "AutoConfig": "configuration_matryoshka_gpt.MatryoshkaGPTConfig",
    "AutoModel": "modeling_matryoshka_gpt.MatryoshkaGPTModel",
    "AutoModelForCausalLM": "modeling_matryoshka_gpt.MatryoshkaGPTForCausalLM",
}
NESTINGS = ("full", "output")
BLOCKS = ("llama", "gpt2")
NESTED_HEADS = ("head_dim", "heads")
ROPE_ORDERS = ("nested", "prefix")


@dataclass(frozen=True)
class DollSizes:
    """What a level means in tensors.

    Args:
        hidden (`int`): Width of the residual stream.
        output (`int`): Width of what the output head reads.
        heads, key_value_heads, head_dim (`int`): Of every attention.
        intermediate (`int`): Feed-forward columns.
        layers (`tuple[int, ...]`): Indices of the layers that it runs, from the input on.
        slot (`int`): Which of the parts of this size it has along every axis, 0 for the leading one.
    """

    hidden: int
    output: int
    heads: int
    key_value_heads: int
    head_dim: int
    intermediate: int
    layers: tuple[int, ...]
    slot: int = 0


@strict
class MatryoshkaGPTConfig(LevelsMixin, PreTrainedConfig):
    r"""
    Configuration of a [`MatryoshkaGPTModel`]: a decoder of the shape of Llama whose smaller levels, the *dolls*, are
    leading parts of everything it has, or of its output only.

    Args:
        vocab_size (`int`, *optional*, defaults to 32000): Entries of the vocabulary.
        hidden_size (`int`, *optional*, defaults to 512): Width of the residual stream.
        intermediate_size (`int`, *optional*): Columns of the SwiGLU networks; by default four times `hidden_size`.
        num_hidden_layers (`int`, *optional*, defaults to 8): Layers.
        blocks (`str`, *optional*, defaults to `"llama"`): `"llama"`: RMS norms, SwiGLU networks, rotary positions.
            `"gpt2"`: those of the first Matryoshka GPT (evintunador/matryoshkaGPT): norms without weights, ReLU
            networks with biases, learned positions, and token embeddings that are normed where they are read.
        num_attention_heads (`int`, *optional*, defaults to 8): Heads.
        num_key_value_heads (`int`, *optional*): Heads of keys and values, each for as many heads; by default all.
        head_dim (`int`, *optional*): Width of a head; by default `hidden_size / num_attention_heads`.
        hidden_act (`str`, *optional*): Activation of the networks; by default `"silu"`, of GPT-2 blocks `"relu"`.
        max_position_embeddings (`int`, *optional*, defaults to 2048): Longest text.
        rms_norm_eps (`float`, *optional*, defaults to 1e-6): Of the norms, taken over the width of the level.
        rope_parameters (`dict`, *optional*): Rotary position embeddings, as in Llama.
        attention_bias, mlp_bias (`bool`, *optional*, default to `False`): Whether the projections have biases.
        attention_dropout (`float`, *optional*, defaults to 0): Dropout of the attention's weights.
        initializer_range (`float`, *optional*, defaults to 0.02): Standard deviation of random weights.
        tie_word_embeddings (`bool`, *optional*, defaults to `True`): Whether the head is the embedding table.
        use_cache (`bool`, *optional*, defaults to `True`): Whether to return keys and values.
        nesting (`str`, *optional*, defaults to `"full"`): `"full"`: a doll is smaller in everything. `"output"`: only
            what the head reads of the last, normed hidden state is (Matryoshka representations, arXiv 2205.13147).
        doll_sizes (`list[int]`, *optional*): Widths of the levels, smallest first, the last `hidden_size`; by default
            a quarter, half and all.
        doll_intermediate_sizes (`list[int]`, *optional*): Their SwiGLU columns; by default in proportion.
        doll_layers (`list[int]`, *optional*): Their layers; by default all.
        layer_order (`list[int]`, *optional*): A doll of `n` layers runs the first `n` of these, from the input on; by
            default in order.
        nested_heads (`str`, *optional*, defaults to `"head_dim"`): Whether a doll has narrower heads (`"head_dim"`) or
            fewer of them (`"heads"`).
        rope_order (`str`, *optional*, defaults to `"nested"`): Which frequencies the leading channels of a head have.
            `"nested"`: those of a stock model of that head size, for sizes that are halvings of `head_dim`;
            `"prefix"`: the highest ones, which suffices for short texts.
        norm_groups (`int`, *optional*, defaults to 1): Each RMS norm is taken over so many equal groups of channels,
            each on its own, as in a model made of so many smaller ones.
        glue (`bool`, *optional*, defaults to `False`): Whether there is a square linear map after each norm and after
            each attention and network, the identity at first, which can be folded away.
        pad_token_id, bos_token_id, eos_token_id (`int`, *optional*): Special tokens.
    """

    model_type = "matryoshka_gpt"
    code_map = AUTO_MAP
    keys_to_ignore_at_inference = ["cache"]

    vocab_size: int = 32000
    hidden_size: int = 512
    intermediate_size: int | None = None
    num_hidden_layers: int = 8
    num_attention_heads: int = 8
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    blocks: str = "llama"
    hidden_act: str | None = None
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    rope_parameters: dict | None = None
    attention_bias: bool = False
    mlp_bias: bool = False
    attention_dropout: float | int = 0.0
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    use_cache: bool = True
    nesting: str = "full"
    doll_sizes: list[int] | tuple[int, ...] | None = None
    doll_intermediate_sizes: list[int] | tuple[int, ...] | None = None
    doll_layers: list[int] | tuple[int, ...] | None = None
    layer_order: list[int] | tuple[int, ...] | None = None
    nested_heads: str = "head_dim"
    rope_order: str = "nested"
    norm_groups: int = 1
    glue: bool = False
    pad_token_id: int | None = None
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2

    def __post_init__(self, **kwargs):
        self.validate_sizes()  # what is derived below rests on it
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        if self.hidden_act is None:
            self.hidden_act = "relu" if self.blocks == "gpt2" else "silu"
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        self.validate_sizes()
        if self.doll_sizes is None:
            shares = [size for size in (self.hidden_size // 4, self.hidden_size // 2) if size and self._fits(size)]
            self.doll_sizes = [*shares, self.hidden_size]
        self.doll_sizes = list(self.doll_sizes)
        for name in ("doll_intermediate_sizes", "doll_layers", "layer_order"):
            if getattr(self, name) is not None:
                setattr(self, name, list(getattr(self, name)))
        # `save_pretrained` writes only the class that is saved; every AutoClass must work from every saved folder.
        kwargs["auto_map"] = {**self.code_map, **(kwargs.get("auto_map") or {})}
        super().__post_init__(**kwargs)

    @property
    def levels(self) -> tuple[str, ...]:
        """Level names, `"d<width>"`, with `"-l<layers>"` where these differ; smallest first."""
        if self.doll_layers is None or len(set(self.doll_layers)) == 1:
            return tuple(f"d{size}" for size in self.doll_sizes)
        return tuple(f"d{size}-l{layers}" for size, layers in zip(self.doll_sizes, self.doll_layers, strict=True))

    def level_sizes(self, level: int | str | None = None) -> DollSizes:
        """The sizes of the tensors of a level.

        Raises:
            ValueError: If the level does not exist.
        """
        index = self.level_index(level)
        size, depth = self.doll_sizes[index], self.num_hidden_layers
        if self.doll_layers is not None:
            depth = self.doll_layers[index]
        layers = tuple(sorted((self.layer_order or range(self.num_hidden_layers))[:depth]))
        heads = (self.num_attention_heads, self.num_key_value_heads, self.head_dim)
        if self.nesting == "output":
            return DollSizes(self.hidden_size, size, *heads, self.intermediate_size, layers)
        if self.nested_heads == "heads":
            heads = (self._share(heads[0], size), self._share(heads[1], size), heads[2])
        else:
            heads = (*heads[:2], self._share(heads[2], size))
        columns = self._share(self.intermediate_size, size)
        if self.doll_intermediate_sizes is not None:
            columns = self.doll_intermediate_sizes[index]
        return DollSizes(size, size, *heads, columns, layers)

    def _share(self, whole: int, size: int) -> int:
        return whole * size // self.hidden_size

    def _fits(self, size: int) -> bool:
        """Whether a doll of this width has whole heads, and pairs of channels to rotate."""
        if self.nesting == "output":
            return True
        if self.nested_heads == "heads":
            return not (self.num_attention_heads * size % self.hidden_size) and not (
                self.num_key_value_heads * size % self.hidden_size
            )
        if self.head_dim * size % self.hidden_size or self._share(self.head_dim, size) % 2:
            return False
        ratio = self.head_dim // self._share(self.head_dim, size)
        whole = self.head_dim % self._share(self.head_dim, size) == 0
        return self.rope_order == "prefix" or (whole and largest_halving(self.head_dim // 2) % ratio == 0)

    def cut(self, level: int | str | None = None) -> "MatryoshkaGPTConfig":
        """Config of a level as a model of its own, whose levels are those up to this one.

        Raises:
            ValueError: If the level does not exist.
        """
        config, index, sizes = copy.deepcopy(self), self.level_index(level), self.level_sizes(level)
        config.doll_sizes = self.doll_sizes[: index + 1]
        if self.doll_intermediate_sizes is not None:
            config.doll_intermediate_sizes = self.doll_intermediate_sizes[: index + 1]
        if self.doll_layers is not None:
            config.doll_layers = self.doll_layers[: index + 1]
        config.num_hidden_layers = len(sizes.layers)
        if self.layer_order is not None:
            config.layer_order = [sizes.layers.index(layer) for layer in self.layer_order if layer in sizes.layers]
        config.hidden_size, config.intermediate_size = sizes.hidden, sizes.intermediate
        config.num_attention_heads, config.num_key_value_heads = sizes.heads, sizes.key_value_heads
        config.head_dim = sizes.head_dim
        config.norm_groups = max(1, sizes.hidden * self.norm_groups // self.hidden_size)
        if self.rope_order == "prefix" and sizes.head_dim < self.head_dim:
            # The highest frequencies of the wider head are all frequencies of the narrower one at this base.
            theta = self.rope_parameters["rope_theta"] ** (sizes.head_dim / self.head_dim)
            config.rope_parameters = {**self.rope_parameters, "rope_theta": theta}
        return config

    def only_largest(self) -> "MatryoshkaGPTConfig":
        """This config without its smaller levels."""
        config = copy.deepcopy(self)
        for name in ("doll_sizes", "doll_intermediate_sizes", "doll_layers"):
            if getattr(self, name) is not None:
                setattr(config, name, getattr(self, name)[-1:])
        return config

    def validate_sizes(self) -> None:
        names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        names += ("num_key_value_heads", "head_dim", "max_position_embeddings")
        check_at_least(1, **{name: getattr(self, name) for name in names})
        check_at_least(0, initializer_range=self.initializer_range)
        check_above_zero(rms_norm_eps=self.rms_norm_eps)
        check_pad_token(self.pad_token_id, self.vocab_size)
        check_probabilities(attention_dropout=self.attention_dropout)
        if self.num_key_value_heads is not None and self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} must be a multiple of num_key_value_heads "
                f"{self.num_key_value_heads}"
            )
        if self.head_dim is not None and self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} must be even: channels are rotated in pairs")

    def validate_choices(self) -> None:
        choices_of = {"blocks": BLOCKS, "nesting": NESTINGS, "nested_heads": NESTED_HEADS, "rope_order": ROPE_ORDERS}
        for name, choices in choices_of.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} {getattr(self, name)!r} does not exist; choose one of {', '.join(choices)}")
        check_activation(hidden_act=self.hidden_act)

    def validate_blocks(self) -> None:
        if self.blocks != "gpt2":
            return
        wanted = {
            "norm_groups": 1,
            "glue": False,
            "nesting": "full",
            "tie_word_embeddings": True,
            "attention_bias": False,
            "mlp_bias": False,
        }
        wanted |= {"num_key_value_heads": self.num_attention_heads}
        wanted |= {"head_dim": self.hidden_size // self.num_attention_heads}
        for name, value in wanted.items():
            if getattr(self, name) != value:
                raise ValueError(f"GPT-2 blocks have {name} {value}, but it is {getattr(self, name)}; leave it out")

    def validate_rope(self) -> None:
        try:
            super().validate_rope()
        except KeyError as error:
            raise ValueError(f"rope_parameters {self.rope_parameters} are not complete: {error.args[0]}") from None

    def validate_rope_type(self) -> None:
        kind = self.rope_parameters["rope_type"]
        if kind not in ROPE_TYPES:
            raise ValueError(f"rope_type {kind!r} cannot be nested; choose one of {', '.join(ROPE_TYPES)}")
        if kind != "default" and self.rope_order == "prefix":
            raise ValueError(f"rope_order 'prefix' needs the rope_type 'default', but it is {kind!r}")

    def validate_dolls(self) -> None:
        self.validate_sizes()  # what follows rests on it
        sizes, count = self.doll_sizes, len(self.doll_sizes)
        if not sizes or min(sizes) < 1 or sizes[-1] > self.hidden_size:
            raise ValueError(f"doll_sizes must be widths up to {self.hidden_size}, but are {sizes}")
        for name in ("doll_intermediate_sizes", "doll_layers"):
            if getattr(self, name) is not None and len(getattr(self, name)) != count:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries for {count} doll_sizes")
        depth, columns = self.doll_layers or [], self.doll_intermediate_sizes or []
        for name, own, whole in (
            ("doll_layers", depth, self.num_hidden_layers),
            ("doll_intermediate_sizes", columns, self.intermediate_size),
        ):
            if own and (min(own) < 1 or own[-1] != whole or own != sorted(own)):
                raise ValueError(f"{name} must not decrease and end with all {whole}, but are {own}")
        if sizes != sorted(sizes) or len(set(zip(sizes, depth or sizes, strict=True))) < count:
            raise ValueError(f"doll_sizes must increase, or doll_layers where they are equal, but are {sizes}")
        if self.nesting == "full" and sizes[-1] != self.hidden_size:
            raise ValueError(f"the last of doll_sizes must be hidden_size {self.hidden_size}, but is {sizes[-1]}")
        for size in sizes:
            if not self._fits(size):
                what = f"{self.num_attention_heads} heads and {self.num_key_value_heads} of keys and values"
                if self.nested_heads == "head_dim":
                    what = f"heads of {self.head_dim} channels in pairs" + (
                        ", halved" if self.rope_order == "nested" else ""
                    )
                raise ValueError(
                    f"doll size {size} of {self.hidden_size} does not fit {what}; give another size"
                    + (", or rope_order='prefix'" if self.rope_order == "nested" else "")
                )

    def validate_norm_groups(self) -> None:
        if self.norm_groups < 1 or self.hidden_size % self.norm_groups:
            raise ValueError(f"norm_groups {self.norm_groups} must divide hidden_size {self.hidden_size}")
        group = self.hidden_size // self.norm_groups
        crossing = [size for size in self.doll_sizes if size % group and self.nesting == "full"]
        if crossing and self.norm_groups > 1:
            raise ValueError(f"doll size {crossing[0]} cuts a norm group of {group} channels; give multiples of it")

    def validate_layer_order(self) -> None:
        if self.layer_order is not None and sorted(self.layer_order) != list(range(self.num_hidden_layers)):
            raise ValueError(
                f"layer_order {self.layer_order} must have each of the layers 0 to {self.num_hidden_layers - 1} once, "
                "the one that the smallest dolls need most first"
            )


MatryoshkaGPTConfig.register_for_auto_class()

__all__ = ["DollSizes", "MatryoshkaGPTConfig"]
