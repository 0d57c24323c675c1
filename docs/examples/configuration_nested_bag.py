"""Configuration of a classifier of texts by their words, nested in its width."""

import copy

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .levels import LevelsMixin, check_matryoshka_dims


AUTO_MAP = {
    "AutoConfig": "configuration_nested_bag.NestedBagConfig",
    "AutoModelForSequenceClassification": "modeling_nested_bag.NestedBagForSequenceClassification",
}


@strict
class NestedBagConfig(LevelsMixin, PreTrainedConfig):
    r"""
    Configuration of a classifier whose levels are the leading channels of one hidden layer.

    Args:
        vocab_size (`int`, *optional*, defaults to 1000): Number of tokens.
        matryoshka_dims (`list[int]`, *optional*): Channels of each level, smallest first; 16, 32 and 64 by default.
        pad_token_id (`int`, *optional*, defaults to 0): The token that is no word.
        initializer_range (`float`, *optional*, defaults to 0.1): Spread of random weights.
    """

    model_type = "nested_bag"

    vocab_size: int = 1000
    matryoshka_dims: list[int] | None = None
    pad_token_id: int | None = 0
    initializer_range: float = 0.1

    def __post_init__(self, **kwargs):
        if self.matryoshka_dims is None:
            self.matryoshka_dims = [16, 32, 64]
        kwargs["auto_map"] = {**AUTO_MAP, **(kwargs.get("auto_map") or {})}
        super().__post_init__(**kwargs)

    @property
    def levels(self) -> tuple[str, ...]:
        """Level names, `"d<channels>"`, smallest first."""
        return tuple(f"d{dim}" for dim in self.matryoshka_dims)

    def cut(self, level: int | str | None = None) -> "NestedBagConfig":
        """Config of a level as a model of its own."""
        config = copy.deepcopy(self)
        config.matryoshka_dims = self.matryoshka_dims[: self.level_index(level) + 1]
        return config

    def validate_dims(self):
        """Called on construction and before saving."""
        check_matryoshka_dims(self.matryoshka_dims)


NestedBagConfig.register_for_auto_class()

__all__ = ["NestedBagConfig"]
