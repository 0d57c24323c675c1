"""A classifier of texts by their words whose small levels are the leading channels of the largest."""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput

from .configuration_nested_bag import NestedBagConfig
from .nested_layers import NestedEmbedding, NestedLinear
from .nested_model import NestedModelMixin


class NestedBagForSequenceClassification(NestedModelMixin, PreTrainedModel):
    config: NestedBagConfig
    base_model_prefix = "model"

    def __init__(self, config: NestedBagConfig):
        super().__init__(config)
        width = config.level_dim()
        self.embeddings = NestedEmbedding(config.vocab_size, width)
        self.hidden = NestedLinear(width, width)
        self.classifier = NestedLinear(width, config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        if isinstance(module, NestedLinear | NestedEmbedding):
            init.normal_(module.weight, std=self.config.initializer_range)
            if isinstance(module, NestedLinear):
                init.zeros_(module.bias)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        level: int | str | None = None,
        **kwargs,
    ) -> SequenceClassifierOutput:
        width = self.config.level_dim(level)
        if attention_mask is None:
            attention_mask = input_ids.ne(self.config.pad_token_id)
        mask = attention_mask[..., None].to(self.dtype)
        # Slices are made inside the layers: LoRA, hooks and quantisation stay in effect.
        words = self.embeddings(input_ids, width) * mask
        mean = words.sum(dim=1) / mask.sum(dim=1).clamp_min(1)
        logits = self.classifier(F.relu(self.hidden(mean, width)))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def cost(self, level: int | str | None = None) -> dict[str, int]:
        width, shapes = self.config.level_dim(level), self.level_shapes(level).values()
        return {"parameters": sum(map(torch.Size.numel, shapes)), "macs": width * (width + self.config.num_labels)}


NestedBagForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
