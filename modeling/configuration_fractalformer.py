"""Configuration of the FractalFormer."""

import copy

from huggingface_hub.dataclasses import strict

from .configuration_matryoshka_gpt import DollSizes, MatryoshkaGPTConfig


AUTO_MAP = {
    "AutoConfig": "configuration_fractalformer.FractalFormerConfig",
    "AutoModel": "modeling_fractalformer.FractalFormerModel",
    "AutoModelForCausalLM": "modeling_fractalformer.FractalFormerForCausalLM",
}
# No width can be halved more often.
DEEPEST = 32


@strict
class FractalFormerConfig(MatryoshkaGPTConfig):
    r"""
    Configuration of a [`FractalFormerModel`]: a decoder of the shape of Llama in which several smaller ones lie side
    by side, and in each of them several still smaller ones (evintunador/FractalFormer).

    Args:
        children (`int`, *optional*, defaults to 2): Dolls inside each doll, each of so much less width, heads and
            columns, one after the other along every axis.
        depth (`int`, *optional*, defaults to 3): How often, the whole included: at depth `i`, from 0, there are
            `children ** i` dolls.
        The others as in [`MatryoshkaGPTConfig`]; what concerns nesting follows from these two.
    """

    model_type = "fractalformer"
    code_map = AUTO_MAP

    children: int = 2
    depth: int = 3

    def __post_init__(self, **kwargs):
        self.nested_heads = "heads"
        if self.children > 0 and 0 < self.depth <= DEEPEST:
            self.doll_sizes = [self.hidden_size // self.children**level for level in reversed(range(self.depth))]
        super().__post_init__(**kwargs)

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the dolls, `"L<depth>.<place>"`, the smallest first; the whole is `"L0.0"`."""
        return tuple(
            f"L{level}.{place}" for level in reversed(range(self.depth)) for place in range(self.children**level)
        )

    def place(self, level: int | str | None) -> tuple[int, int]:
        """Depth of a doll and its place among those of this depth."""
        depth, place = self.level_name(level)[1:].split(".")
        return int(depth), int(place)

    def level_sizes(self, level: int | str | None = None) -> DollSizes:
        depth, place = self.place(level)
        share = self.children**depth
        return DollSizes(
            hidden=self.hidden_size // share,
            output=self.hidden_size // share,
            heads=self.num_attention_heads // share,
            key_value_heads=self.num_key_value_heads // share,
            head_dim=self.head_dim,
            intermediate=self.intermediate_size // share,
            layers=tuple(range(self.num_hidden_layers)),
            slot=place,
        )

    def cut(self, level: int | str | None = None) -> "FractalFormerConfig":
        """Config of a doll as a model of its own, with the dolls inside it.

        Raises:
            ValueError: If the doll does not exist.
        """
        sizes, (depth, _) = self.level_sizes(level), self.place(level)
        config = copy.deepcopy(self)
        config.hidden_size, config.intermediate_size = sizes.hidden, sizes.intermediate
        config.num_attention_heads, config.num_key_value_heads = sizes.heads, sizes.key_value_heads
        config.depth = self.depth - depth
        config.doll_sizes = self.doll_sizes[: config.depth]
        return config

    def only_largest(self) -> "FractalFormerConfig":
        config = copy.deepcopy(self)
        config.depth, config.doll_sizes = 1, self.doll_sizes[-1:]
        return config

    def validate_dolls(self) -> None:
        self.validate_sizes()  # what follows rests on it
        if self.children < 2 or not 0 < self.depth <= DEEPEST:
            raise ValueError(
                f"children must be at least 2 and depth from 1 to {DEEPEST}, but are {self.children} and {self.depth}"
            )
        share = self.children ** (self.depth - 1)
        names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
        for name in names:
            if getattr(self, name) % share:
                raise ValueError(
                    f"{name} {getattr(self, name)} cannot be divided among the {share} smallest dolls "
                    f"({self.children} children, depth {self.depth}); give a multiple"
                )

    def validate_fractal(self) -> None:
        fixed = {"blocks": "llama", "nesting": "full", "norm_groups": 1, "glue": False}
        fixed |= {"doll_layers": None, "doll_intermediate_sizes": None, "layer_order": None}
        for name, value in fixed.items():
            if getattr(self, name) != value:
                raise ValueError(f"a FractalFormer has {name} {value}, but it is {getattr(self, name)}; leave it out")


FractalFormerConfig.register_for_auto_class()

__all__ = ["FractalFormerConfig"]
