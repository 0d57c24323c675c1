"""A nested text encoder for the tests: BERT with levels in depth and feed-forward width."""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel, BertPreTrainedModel
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling, MaskedLMOutput, SequenceClassifierOutput
from transformers.models.bert.modeling_bert import (
    BertAttention,
    BertEmbeddings,
    BertOnlyMLMHead,
    BertPooler,
    BertSelfAttention,
)
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_tiny_nested import TinyNestedConfig
from .nested_layers import NestedLinear
from .nested_model import NestedModelMixin


class TinyNestedIntermediate(nn.Module):
    def __init__(self, config: TinyNestedConfig, size: int):
        super().__init__()
        self.dense = NestedLinear(config.hidden_size, size)
        self.act = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor, size: int) -> torch.Tensor:
        return self.act(self.dense(hidden_states, size))


class TinyNestedOutput(nn.Module):
    def __init__(self, config: TinyNestedConfig, size: int):
        super().__init__()
        self.dense = NestedLinear(size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(self.dropout(self.dense(hidden_states)) + residual)


# The names of the sub-modules are those of BERT, so that a level's state dict is a stock one.
class TinyNestedLayer(GradientCheckpointingLayer):
    def __init__(self, config: TinyNestedConfig, index: int):
        super().__init__()
        size = config.intermediate_sizes[-1][index]
        self.attention = BertAttention(config, layer_idx=index)
        self.intermediate = TinyNestedIntermediate(config, size)
        self.output = TinyNestedOutput(config, size)

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None, size: int, **kwargs):
        hidden_states, _ = self.attention(hidden_states, attention_mask, **kwargs)
        return self.output(self.intermediate(hidden_states, size), hidden_states)


class TinyNestedEncoder(nn.Module):
    def __init__(self, config: TinyNestedConfig):
        super().__init__()
        self.layer = nn.ModuleList([TinyNestedLayer(config, index) for index in range(config.num_hidden_layers)])

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None, sizes: list[int], **kwargs):
        for layer, size in zip(self.layer, sizes, strict=False):
            hidden_states = layer(hidden_states, attention_mask, size, **kwargs)
        return hidden_states


class TinyNestedPreTrainedModel(NestedModelMixin, BertPreTrainedModel):
    config: TinyNestedConfig
    stock_class = BertModel
    _can_record_outputs = {"hidden_states": TinyNestedLayer, "attentions": BertSelfAttention}

    def cost(self, level: int | str | None = None) -> dict[str, int]:
        config, sizes = self.config, self.config.level_sizes(level)
        shapes = self.level_shapes(level)
        tied = set(self.all_tied_weights_keys)
        # Multiplications of one token, without those between tokens.
        width = config.hidden_size
        return {
            "parameters": sum(shape.numel() for name, shape in shapes.items() if name not in tied),
            "macs": sum(4 * width * width + 2 * width * size for size in sizes),
            "bytes_per_vector": 4 * width,
        }

    @torch.no_grad()
    def to_stock(self, level: int | str | None = None, padded: bool = False) -> BertPreTrainedModel:
        config, sizes = self.config, self.config.level_sizes(level)
        if config.output_scale != 1:
            raise ValueError(
                f"output_scale {config.output_scale} multiplies the hidden states, which BERT does not do"
            )
        if len(set(sizes)) > 1 and not padded:
            raise ValueError(
                f"the layers of level {config.level_name(level)} have the feed-forward widths "
                f"{', '.join(map(str, sizes))}, but those of BERT have one width"
            )
        small = self.cut(level)
        fields = {name: getattr(small.config, name) for name in BertConfig().to_dict() if hasattr(small.config, name)}
        ours = ("model_type", "auto_map", "architectures", "transformers_version", "_name_or_path")
        stock = self.stock_class(BertConfig(**{name: value for name, value in fields.items() if name not in ours}))
        state = small.state_dict()
        for index, size in enumerate(sizes):
            missing, layer = max(sizes) - size, f"encoder.layer.{index}."
            for name in [name for name in state if layer in name]:
                if "intermediate.dense.weight" in name:
                    state[name] = F.pad(state[name], (0, 0, 0, missing))
                elif "intermediate.dense.bias" in name or name.endswith(f"{layer}output.dense.weight"):
                    state[name] = F.pad(state[name], (0, missing))
        stock.load_state_dict(state)
        return stock.to(small.device, small.dtype).train(self.training)


class TinyNestedModel(TinyNestedPreTrainedModel):
    def __init__(self, config: TinyNestedConfig, add_pooling_layer: bool = True):
        super().__init__(config)
        self.embeddings = BertEmbeddings(config)
        self.encoder = TinyNestedEncoder(config)
        self.pooler = BertPooler(config) if add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding):
        self.embeddings.word_embeddings = value

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        level: int | str | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        sizes = self.config.level_sizes(level)
        hidden_states = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds)
        mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=hidden_states, attention_mask=attention_mask
        )
        hidden_states = self.encoder(hidden_states, mask, sizes, **kwargs)
        if self.config.output_scale != 1:
            hidden_states = hidden_states * self.config.output_scale
        pooled = self.pooler(hidden_states) if self.pooler is not None else None
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=pooled)


class TinyNestedForMaskedLM(TinyNestedPreTrainedModel):
    stock_class = BertForMaskedLM
    _tied_weights_keys = dict(BertForMaskedLM._tied_weights_keys)

    def __init__(self, config: TinyNestedConfig):
        super().__init__(config)
        self.bert = TinyNestedModel(config, add_pooling_layer=False)
        self.cls = BertOnlyMLMHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.cls.predictions.decoder

    def set_output_embeddings(self, value: nn.Linear):
        self.cls.predictions.decoder = value
        self.cls.predictions.bias = value.bias

    @can_return_tuple
    def forward(self, input_ids: torch.Tensor | None = None, labels: torch.Tensor | None = None, **kwargs):
        outputs = self.bert(input_ids, **kwargs)
        logits = self.cls(outputs.last_hidden_state)
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class TinyNestedForSequenceClassification(TinyNestedPreTrainedModel):
    stock_class = BertForSequenceClassification

    def __init__(self, config: TinyNestedConfig):
        super().__init__(config)
        self.bert = TinyNestedModel(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(self, input_ids: torch.Tensor | None = None, labels: torch.Tensor | None = None, **kwargs):
        outputs = self.bert(input_ids, **kwargs)
        logits = self.classifier(self.dropout(outputs.pooler_output))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


TinyNestedModel.register_for_auto_class("AutoModel")
TinyNestedForMaskedLM.register_for_auto_class("AutoModelForMaskedLM")
TinyNestedForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")

__all__ = ["TinyNestedForMaskedLM", "TinyNestedForSequenceClassification", "TinyNestedModel"]
