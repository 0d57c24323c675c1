"""Configuration of a classifier of texts by their words, nested in its width."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .levels import DimLevelsMixin, check_matryoshka_dims


AUTO_MAP = {
    "AutoConfig": "configuration_nested_bag.NestedBagConfig",
    "AutoModelForSequenceClassification": "modeling_nested_bag.NestedBagForSequenceClassification",
}


@strict
class NestedBagConfig(DimLevelsMixin, PreTrainedConfig):
    """Levels are the leading `matryoshka_dims` channels of one hidden layer, by default 16, 32 and 64."""

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

    def validate_dims(self):
        """Called on construction and before saving."""
        check_matryoshka_dims(self.matryoshka_dims)


NestedBagConfig.register_for_auto_class()
