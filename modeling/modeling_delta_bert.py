"""BERT at budgets of width, heads and depth; at its full budget it is BERT."""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel, BertPreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import eager_attention_forward
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .budgeted_heads import BudgetedClassifierMixin, BudgetedMaskedLMMixin
from .budgeted_model import BudgetedModelMixin
from .budgets import BUDGET_FIELDS
from .configuration_delta_bert import DeltaBertConfig
from .model_inputs import check_mask
from .nested_layers import NestedEmbedding, NestedLayerNorm, NestedLinear, gate_columns
from .token_routing import ResidualPreview, TokenRouting, run_layer, take_queries, take_tokens


def _norm(config: DeltaBertConfig) -> NestedLayerNorm:
    return NestedLayerNorm(config.hidden_size, eps=config.layer_norm_eps, levels=config.norm_levels)


# The names of all sub-modules are those of BERT, so that its checkpoints load unchanged.
class DeltaBertEmbeddings(nn.Module):
    """Sum of word, position and token-type embeddings, at their leading columns."""

    def __init__(self, config: DeltaBertConfig):
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = NestedEmbedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position_embeddings = NestedEmbedding(config.max_position_embeddings, width)
        self.token_type_embeddings = NestedEmbedding(config.type_vocab_size, width)
        self.LayerNorm = _norm(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        positions = torch.arange(config.max_position_embeddings).expand((1, -1))
        self.register_buffer("position_ids", positions, persistent=False)

    def forward(
        self,
        input_ids: torch.Tensor | None,
        token_type_ids: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
        width: int,
        level: int,
    ) -> torch.Tensor:
        words = self.word_embeddings(input_ids, width) if inputs_embeds is None else inputs_embeds[..., :width]
        if position_ids is None:
            most = self.position_ids.shape[1]
            if not torch.compiler.is_compiling() and words.shape[1] > most:
                raise ValueError(
                    f"the texts have {words.shape[1]} tokens, but this model has positions for {most}; cut them "
                    "(max_position_embeddings)"
                )
            position_ids = self.position_ids[:, : words.shape[1]]
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(position_ids)
        embeddings = words + self.token_type_embeddings(token_type_ids, width)
        embeddings = embeddings + self.position_embeddings(position_ids, width)
        return self.dropout(self.LayerNorm(embeddings, level))


class DeltaBertSelfAttention(nn.Module):
    """The leading heads of self-attention."""

    def __init__(self, config: DeltaBertConfig, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        width = config.num_attention_heads * config.head_dim
        self.query = NestedLinear(config.hidden_size, width)
        self.key = NestedLinear(config.hidden_size, width)
        self.value = NestedLinear(config.hidden_size, width)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)
        self.is_causal = False

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        heads: int,
        places: torch.Tensor | None = None,
        **kwargs,
    ):
        shape = (*hidden_states.shape[:-1], heads, self.head_dim)
        query, key, value = (
            layer(hidden_states, heads * self.head_dim).view(shape).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        query, attention_mask = take_queries(query, attention_mask, places)
        attention_interface = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attention_interface(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.dropout.p if self.training else 0.0,
            scaling=self.head_dim**-0.5,
            **kwargs,
        )
        return output.reshape(*output.shape[:2], -1).contiguous(), weights


class DeltaBertOutput(nn.Module):
    """Back to the residual stream, to whose width the projection is cut; after attention and after the MLP."""

    def __init__(self, config: DeltaBertConfig, in_features: int, base_features: int):
        super().__init__()
        self.dense = NestedLinear(in_features, config.hidden_size)
        self.LayerNorm = _norm(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.base_features = base_features
        self.gate = nn.Parameter(torch.ones(())) if config.delta_gates else None

    def gated_output(self) -> tuple[str, int]:
        return "dense", self.base_features

    def forward(self, hidden_states: torch.Tensor, residual: torch.Tensor, level: int) -> torch.Tensor:
        hidden_states = gate_columns(hidden_states, self.base_features, self.gate)
        return self.LayerNorm(self.dropout(self.dense(hidden_states, residual.shape[-1])) + residual, level)


class DeltaBertAttention(nn.Module):
    def __init__(self, config: DeltaBertConfig, layer_idx: int):
        super().__init__()
        self.self = DeltaBertSelfAttention(config, layer_idx)
        base_heads, _ = config.base_sizes(layer_idx)
        width = config.num_attention_heads * config.head_dim
        self.output = DeltaBertOutput(config, width, base_heads * config.head_dim)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        heads: int,
        level: int,
        places: torch.Tensor | None = None,
        **kwargs,
    ):
        attended, _ = self.self(hidden_states, attention_mask, heads, places, **kwargs)
        return self.output(attended, take_tokens(hidden_states, places), level)


class DeltaBertIntermediate(nn.Module):
    def __init__(self, config: DeltaBertConfig, columns: int):
        super().__init__()
        self.dense = NestedLinear(config.hidden_size, columns)
        self.act = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor, columns: int) -> torch.Tensor:
        return self.act(self.dense(hidden_states, columns))


class DeltaBertLayer(GradientCheckpointingLayer):
    """One layer, with its leading heads and feed-forward columns."""

    def __init__(self, config: DeltaBertConfig, layer_idx: int):
        super().__init__()
        columns = config.level_sizes().intermediate[layer_idx]
        self.attention = DeltaBertAttention(config, layer_idx)
        self.intermediate = DeltaBertIntermediate(config, columns)
        self.base_sizes = config.base_sizes(layer_idx)
        self.output = DeltaBertOutput(config, columns, self.base_sizes[1])
        self.preview = ResidualPreview(config) if config.token_routing else None

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        heads: int,
        columns: int,
        level: int,
        routing: TokenRouting | None = None,
        real: torch.Tensor | None = None,
        **kwargs,
    ) -> torch.Tensor:
        def run(sizes: tuple[int, int], places: torch.Tensor | None = None) -> torch.Tensor:
            states = self.attention(hidden_states, attention_mask, sizes[0], level, places, **kwargs)
            return self.output(self.intermediate(states, sizes[1]), states, level)

        return run_layer(self, run, (heads, columns), hidden_states, routing, real)


class DeltaBertEncoder(nn.Module):
    def __init__(self, config: DeltaBertConfig):
        super().__init__()
        self.layer = nn.ModuleList([DeltaBertLayer(config, index) for index in range(config.num_hidden_layers)])


class DeltaBertPooler(nn.Module):
    def __init__(self, config: DeltaBertConfig):
        super().__init__()
        self.dense = NestedLinear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.dense(hidden_states[:, 0], hidden_states.shape[-1]))


class DeltaBertTransform(nn.Module):
    def __init__(self, config: DeltaBertConfig):
        super().__init__()
        self.dense = NestedLinear(config.hidden_size, config.hidden_size)
        self.act = ACT2FN[config.hidden_act]
        self.LayerNorm = _norm(config)

    def forward(self, hidden_states: torch.Tensor, level: int) -> torch.Tensor:
        return self.LayerNorm(self.act(self.dense(hidden_states, hidden_states.shape[-1])), level)


class DeltaBertLMPredictionHead(nn.Module):
    def __init__(self, config: DeltaBertConfig):
        super().__init__()
        self.transform = DeltaBertTransform(config)
        self.decoder = NestedLinear(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden_states: torch.Tensor, level: int) -> torch.Tensor:
        return self.decoder(self.transform(hidden_states, level))


class DeltaBertMLMHead(nn.Module):
    def __init__(self, config: DeltaBertConfig):
        super().__init__()
        self.predictions = DeltaBertLMPredictionHead(config)


class DeltaBertPreTrainedModel(BudgetedModelMixin, BertPreTrainedModel):
    config: DeltaBertConfig
    stock_class = BertModel
    layer_list = "encoder.layer"
    own_fields = (*BUDGET_FIELDS, "sparse_prediction")
    _no_split_modules = ["DeltaBertEmbeddings", "DeltaBertLayer"]
    _can_record_outputs = {"hidden_states": DeltaBertLayer, "attentions": DeltaBertSelfAttention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, DeltaBertLMPredictionHead):
            init.zeros_(module.bias)
        elif isinstance(module, DeltaBertEmbeddings):
            init.copy_(module.position_ids, torch.arange(module.position_ids.shape[-1]).expand((1, -1)))


class DeltaBertModel(DeltaBertPreTrainedModel):
    """The encoder.

    Args:
        config ([`DeltaBertConfig`]): Its config.
        add_pooling_layer (`bool`, *optional*, defaults to `True`): Whether it has BERT's pooler.
    """

    def __init__(self, config: DeltaBertConfig, add_pooling_layer: bool = True):
        super().__init__(config)
        self.embeddings = DeltaBertEmbeddings(config)
        self.encoder = DeltaBertEncoder(config)
        self.pooler = DeltaBertPooler(config) if add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings.word_embeddings = value

    def _new(self, config: DeltaBertConfig) -> "DeltaBertModel":
        return type(self)(config, add_pooling_layer=self.pooler is not None)

    def _new_stock(self, config: BertConfig) -> BertModel:
        return self.stock_class(config, add_pooling_layer=self.pooler is not None)

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
        layers: Sequence[int] | None = None,
        routing: TokenRouting | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*): Token ids.
            attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*): 0 at padding. A mask of shape
                `(batch, 1, length, length)` is used as it is.
            token_type_ids, position_ids (`torch.LongTensor`, *optional*): As in BERT.
            inputs_embeds (`torch.FloatTensor` of shape `(batch, length, hidden)`, *optional*): Instead of `input_ids`;
                a level of a narrower residual stream takes the leading columns.
            level (`int` or `str`, *optional*): The budget to compute, an index or a name such as `"w0.5-h6-d6"`; the
                largest by default.
            layers (`Sequence[int]`, *optional*): Indices of the layers to run, in order, such as depth dropout draws
                in training; all of the level by default.
            routing ([`TokenRouting`], *optional*): Runs some tokens at the smallest size, in a model with
                `config.token_routing`; all run at the size of the level by default.

        Returns:
            [`~transformers.modeling_outputs.BaseModelOutputWithPooling`]: `last_hidden_state` of shape
            `(batch, length, hidden)`, `hidden` being that of the level.

        Raises:
            ValueError: If the level does not exist or has no such layer, not exactly one of `input_ids` and
                `inputs_embeds` is given, rows have no tokens, the mask is not of their shape, or tokens cannot be
                routed.
        """
        sizes, run, index = self._begin(input_ids, inputs_embeds, level, layers)
        hidden_states = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds, sizes.hidden, index)
        check_mask(attention_mask, *hidden_states.shape[:2])
        if routing is not None and routing.share < 1:
            kwargs |= self._routed(routing, hidden_states, attention_mask)
        mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=hidden_states, attention_mask=attention_mask
        )
        for layer, columns in run:
            hidden_states = self.encoder.layer[layer](hidden_states, mask, sizes.heads, columns, index, **kwargs)
        pooled = self.pooler(hidden_states) if self.pooler is not None else None
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=pooled)


class DeltaBertForMaskedLM(BudgetedMaskedLMMixin, DeltaBertPreTrainedModel):
    """The encoder with BERT's head for masked language modeling."""

    stock_class = BertForMaskedLM
    _tied_weights_keys = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }

    def __init__(self, config: DeltaBertConfig):
        super().__init__(config)
        self.bert = DeltaBertModel(config, add_pooling_layer=False)
        self.cls = DeltaBertMLMHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.cls.predictions.decoder

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.cls.predictions.decoder = value
        self.cls.predictions.bias = value.bias

    def predict(self, hidden_states: torch.Tensor, level: int) -> torch.Tensor:
        return self.cls.predictions(hidden_states, level)


class DeltaBertForSequenceClassification(BudgetedClassifierMixin, DeltaBertPreTrainedModel):
    """The encoder with a classifier of texts on its pooler."""

    stock_class = BertForSequenceClassification

    def __init__(self, config: DeltaBertConfig):
        super().__init__(config)
        self.bert = DeltaBertModel(config)
        dropout = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
        self.dropout = nn.Dropout(dropout)
        self.classifier = NestedLinear(config.hidden_size, config.num_labels)
        self.post_init()

    def classify(
        self,
        outputs: BaseModelOutputWithPooling,
        attention_mask: torch.Tensor | None,
        level: int | str | None,
    ) -> torch.Tensor:
        return self.classifier(self.dropout(outputs.pooler_output))


DeltaBertModel.register_for_auto_class("AutoModel")
DeltaBertForMaskedLM.register_for_auto_class("AutoModelForMaskedLM")
DeltaBertForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")

__all__ = ["DeltaBertForMaskedLM", "DeltaBertForSequenceClassification", "DeltaBertModel"]
