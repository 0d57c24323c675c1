"""Configuration of the nested text encoder that the tests use as any architecture."""

import copy

from huggingface_hub.dataclasses import strict
from transformers import BertConfig

from .levels import LevelsMixin


AUTO_MAP = {
    "AutoConfig": "configuration_tiny_nested.TinyNestedConfig",
    "AutoModel": "modeling_tiny_nested.TinyNestedModel",
    "AutoModelForMaskedLM": "modeling_tiny_nested.TinyNestedForMaskedLM",
    "AutoModelForSequenceClassification": "modeling_tiny_nested.TinyNestedForSequenceClassification",
}


@strict
class TinyNestedConfig(LevelsMixin, BertConfig):
    r"""
    Configuration of a BERT whose small levels have fewer layers and narrower feed-forward networks.

    Args:
        intermediate_sizes (`list[list[int]]`, *optional*):
            For each level, the smallest first, the feed-forward width of each of its layers. `intermediate_size` and
            `num_hidden_layers` follow from the largest level.
        output_scale (`float`, *optional*, defaults to 1.0):
            Factor on the last hidden states; anything but 1 is no stock BERT.
    """

    model_type = "tiny_nested"

    vocab_size: int = 99
    hidden_size: int = 16
    num_attention_heads: int = 2
    max_position_embeddings: int = 64
    # Far from BERT's own, so that texts get different vectors.
    initializer_range: float = 0.3
    intermediate_sizes: list[list[int]] | None = None
    output_scale: float | int = 1.0

    def __post_init__(self, **kwargs):
        if self.intermediate_sizes is None:
            self.intermediate_sizes = [[16, 16], [32, 32, 32], [64, 64, 64]]
        self._set_sizes()
        kwargs["auto_map"] = {**AUTO_MAP, **(kwargs.get("auto_map") or {})}
        super().__post_init__(**kwargs)

    def _set_sizes(self):
        self.intermediate_size = max(self.intermediate_sizes[-1])
        self.num_hidden_layers = len(self.intermediate_sizes[-1])

    @property
    def levels(self) -> tuple[str, ...]:
        """Level names, `"f<widest feed-forward>-l<layers>"`, smallest first."""
        return tuple(f"f{max(sizes)}-l{len(sizes)}" for sizes in self.intermediate_sizes)

    def level_sizes(self, level: int | str | None = None) -> list[int]:
        """Feed-forward width of each layer of a level."""
        return self.intermediate_sizes[self.level_index(level)]

    def cut(self, level: int | str | None = None) -> "TinyNestedConfig":
        """Config of a level as a model of its own."""
        index = self.level_index(level)
        config = copy.deepcopy(self)
        config.intermediate_sizes = self.intermediate_sizes[: index + 1]
        config._set_sizes()
        return config

    def validate_nesting(self):
        if len(set(self.levels)) < len(self.levels):
            raise ValueError(f"two levels of {self.intermediate_sizes} have the same name")
        for small, large in zip(self.intermediate_sizes, self.intermediate_sizes[1:], strict=False):
            if len(small) > len(large) or any(a > b for a, b in zip(small, large, strict=False)):
                raise ValueError(f"level {small} is not inside the next one {large}")


TinyNestedConfig.register_for_auto_class()

__all__ = ["TinyNestedConfig"]
