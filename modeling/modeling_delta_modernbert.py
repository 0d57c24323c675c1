"""ModernBERT at budgets of width, heads and depth; at its full budget it is ModernBERT."""

import math
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import nn
from transformers import (
    ModernBertForMaskedLM,
    ModernBertForSequenceClassification,
    ModernBertModel,
    ModernBertPreTrainedModel,
)
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask, create_bidirectional_sliding_window_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.modernbert.modeling_modernbert import (
    ModernBertRotaryEmbedding,
    apply_rotary_pos_emb,
    eager_attention_forward,
)
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .budgeted_heads import BudgetedClassifierMixin, BudgetedMaskedLMMixin
from .budgeted_model import BudgetedModelMixin
from .configuration_delta_modernbert import DeltaModernBertConfig
from .model_inputs import check_mask
from .nested_layers import NestedBlockLinear, NestedEmbedding, NestedLayerNorm, NestedLinear, gate_columns
from .token_routing import ResidualPreview, TokenRouting, run_layer, take_queries, take_tokens


def _norm(config: DeltaModernBertConfig) -> NestedLayerNorm:
    return NestedLayerNorm(config.hidden_size, config.norm_eps, config.norm_bias, config.norm_levels)


def _starts(layer: nn.Module, spread: str) -> nn.Module:
    """Note how far apart the initial weights of a layer are, see `_init_weights`, which never sees a custom module
    that has no weights of its own."""
    layer.initial_spread = spread
    return layer


# The names of all sub-modules are those of ModernBERT, so that its checkpoints load unchanged.
class DeltaModernBertEmbeddings(nn.Module):
    """Word embeddings, at their leading columns."""

    def __init__(self, config: DeltaModernBertConfig):
        super().__init__()
        self.tok_embeddings = _starts(
            NestedEmbedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id), "in"
        )
        self.norm = _norm(config)
        self.drop = nn.Dropout(config.embedding_dropout)

    def forward(
        self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None, width: int, level: int
    ) -> torch.Tensor:
        words = self.tok_embeddings(input_ids, width) if inputs_embeds is None else inputs_embeds[..., :width]
        return self.drop(self.norm(words, level))


class DeltaModernBertMLP(nn.Module):
    """Gated feed-forward network; its input and gate rows lie one block below the other in `Wi`."""

    def __init__(self, config: DeltaModernBertConfig, layer_idx: int):
        super().__init__()
        columns = config.level_sizes().intermediate[layer_idx]
        _, self.base_columns = config.base_sizes(layer_idx)
        self.gate = nn.Parameter(torch.ones(())) if config.delta_gates else None
        self.Wi = _starts(NestedBlockLinear(config.hidden_size, 2 * columns, blocks=2, bias=config.mlp_bias), "in")
        self.act = ACT2FN[config.hidden_activation]
        self.drop = nn.Dropout(config.mlp_dropout)
        self.Wo = _starts(NestedLinear(columns, config.hidden_size, bias=config.mlp_bias), "deep")

    def gated_output(self) -> tuple[str, int]:
        return "Wo", self.base_columns

    def forward(self, hidden_states: torch.Tensor, columns: int) -> torch.Tensor:
        value, gate = self.Wi(hidden_states, columns).chunk(2, dim=-1)
        inner = gate_columns(self.drop(self.act(value) * gate), self.base_columns, self.gate)
        return self.Wo(inner, hidden_states.shape[-1])


class DeltaModernBertAttention(nn.Module):
    """The leading heads of self-attention; query, key and value lie one block below the other in `Wqkv`."""

    def __init__(self, config: DeltaModernBertConfig, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.dropout = config.attention_dropout
        width = config.num_attention_heads * config.head_dim
        self.base_heads, _ = config.base_sizes(layer_idx)
        self.gate = nn.Parameter(torch.ones(())) if config.delta_gates else None
        self.Wqkv = _starts(
            NestedBlockLinear(config.hidden_size, 3 * width, blocks=3, bias=config.attention_bias), "in"
        )
        self.Wo = _starts(NestedLinear(width, config.hidden_size, bias=config.attention_bias), "deep")
        self.out_drop = nn.Dropout(config.attention_dropout)
        sliding = config.layer_types[layer_idx] == "sliding_attention"
        # Flash attention counts both ends of the window.
        self.sliding_window = config.sliding_window + 1 if sliding else None
        self.is_causal = False

    def gated_output(self) -> tuple[str, int]:
        return "Wo", self.base_heads * self.head_dim

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        heads: int,
        places: torch.Tensor | None = None,
        **kwargs,
    ):
        shape = hidden_states.shape[:-1]
        fused = self.Wqkv(hidden_states, heads * self.head_dim).view(*shape, 3, heads, self.head_dim)
        query, key, value = (part.transpose(1, 2) for part in fused.unbind(dim=-3))
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
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
            dropout=self.dropout if self.training else 0.0,
            scaling=self.head_dim**-0.5,
            sliding_window=self.sliding_window,
            deterministic=self.config.deterministic_flash_attn,
            **kwargs,
        )
        output = output.reshape(*output.shape[:2], -1).contiguous()
        output = gate_columns(output, self.base_heads * self.head_dim, self.gate)
        output = self.Wo(output, hidden_states.shape[-1])
        return self.out_drop(output), weights


class DeltaModernBertRotaryEmbedding(ModernBertRotaryEmbedding):
    """ModernBERT's; its frequencies stay in float32 when the model is cast, as they do when it is loaded."""

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        exact = dict(self.named_buffers())
        super()._apply(fn, recurse)
        for name, buffer in self.named_buffers():
            if buffer.dtype != exact[name].dtype:
                setattr(self, name, exact[name].to(buffer.device))
        return self


class DeltaModernBertEncoderLayer(GradientCheckpointingLayer):
    """One layer, with its leading heads and feed-forward columns."""

    def __init__(self, config: DeltaModernBertConfig, layer_idx: int):
        super().__init__()
        self.layer_idx = layer_idx
        self.attn_norm = nn.Identity() if layer_idx == 0 else _norm(config)
        self.attn = DeltaModernBertAttention(config, layer_idx)
        self.mlp_norm = _norm(config)
        self.mlp = DeltaModernBertMLP(config, layer_idx)
        self.attention_type = config.layer_types[layer_idx]
        self.base_sizes = config.base_sizes(layer_idx)
        self.preview = ResidualPreview(config) if config.token_routing else None

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        heads: int,
        columns: int,
        level: int,
        routing: TokenRouting | None = None,
        real: torch.Tensor | None = None,
        **kwargs,
    ) -> torch.Tensor:
        normed = hidden_states if self.layer_idx == 0 else self.attn_norm(hidden_states, level)

        def run(sizes: tuple[int, int], places: torch.Tensor | None = None) -> torch.Tensor:
            attended, _ = self.attn(normed, attention_mask, position_embeddings, sizes[0], places, **kwargs)
            states = take_tokens(hidden_states, places) + attended
            return states + self.mlp(self.mlp_norm(states, level), sizes[1])

        return run_layer(self, run, (heads, columns), hidden_states, routing, real)


class DeltaModernBertPredictionHead(nn.Module):
    def __init__(self, config: DeltaModernBertConfig):
        super().__init__()
        self.dense = _starts(NestedLinear(config.hidden_size, config.hidden_size, bias=config.classifier_bias), "deep")
        self.act = ACT2FN[config.classifier_activation]
        self.norm = _norm(config)

    def forward(self, hidden_states: torch.Tensor, level: int) -> torch.Tensor:
        return self.norm(self.act(self.dense(hidden_states, hidden_states.shape[-1])), level)


class DeltaModernBertPreTrainedModel(BudgetedModelMixin, ModernBertPreTrainedModel):
    config: DeltaModernBertConfig
    stock_class = ModernBertModel
    layer_list = "layers"
    mlp_matrices = 3
    _no_split_modules = ["DeltaModernBertEmbeddings", "DeltaModernBertEncoderLayer"]
    _can_record_outputs = {"hidden_states": DeltaModernBertEncoderLayer, "attentions": DeltaModernBertAttention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        spread = getattr(module, "initial_spread", None)
        if spread is None:
            return
        # ModernBERT's truncated normal.
        config = self.config
        std = config.hidden_size**-0.5 if spread == "last" else config.initializer_range
        if spread == "deep":
            std /= math.sqrt(2 * config.num_hidden_layers)
        cutoff = std * (3 if config.initializer_cutoff_factor is None else config.initializer_cutoff_factor)
        init.trunc_normal_(module.weight, mean=0.0, std=std, a=-cutoff, b=cutoff)

    def exit_states(self, hidden_states: torch.Tensor, level: int | str | None = None) -> torch.Tensor:
        return self.base_model.final_norm(hidden_states, self.config.level_index(level))

    def _attention_span(self, layer: int, sequence_length: int) -> int:
        if self.config.layer_types[layer] == "full_attention":
            return sequence_length
        return min(sequence_length, 2 * self.config.sliding_window + 1)


class DeltaModernBertModel(DeltaModernBertPreTrainedModel):
    """The encoder."""

    def __init__(self, config: DeltaModernBertConfig):
        super().__init__(config)
        self.embeddings = DeltaModernBertEmbeddings(config)
        self.layers = nn.ModuleList(
            [DeltaModernBertEncoderLayer(config, index) for index in range(config.num_hidden_layers)]
        )
        self.final_norm = _norm(config)
        self.rotary_emb = DeltaModernBertRotaryEmbedding(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.tok_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings.tok_embeddings = value

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | dict[str, torch.Tensor] | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        level: int | str | None = None,
        layers: Sequence[int] | None = None,
        routing: TokenRouting | None = None,
        **kwargs,
    ) -> BaseModelOutput:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*): Token ids.
            attention_mask (`torch.Tensor` of shape `(batch, length)` or `dict`, *optional*): 0 at padding; or ready
                masks under `"full_attention"` and `"sliding_attention"`.
            position_ids (`torch.LongTensor`, *optional*): As in ModernBERT.
            inputs_embeds (`torch.FloatTensor` of shape `(batch, length, hidden)`, *optional*): Instead of `input_ids`;
                a level of a narrower residual stream takes the leading columns.
            level (`int` or `str`, *optional*): The budget to compute, an index or a name such as `"w0.5-h6-d6"`; the
                largest by default.
            layers (`Sequence[int]`, *optional*): Indices of the layers to run, in order, such as depth dropout draws
                in training; all of the level by default.
            routing ([`TokenRouting`], *optional*): Runs some tokens at the smallest size, in a model with
                `config.token_routing`; all run at the size of the level by default.

        Returns:
            [`~transformers.modeling_outputs.BaseModelOutput`]: `last_hidden_state` of shape `(batch, length, hidden)`,
            `hidden` being that of the level.

        Raises:
            ValueError: If the level does not exist or has no such layer, not exactly one of `input_ids` and
                `inputs_embeds` is given, rows have no tokens, the mask is not of their shape, or tokens cannot be
                routed.
        """
        sizes, run, level = self._begin(input_ids, inputs_embeds, level, layers)
        hidden_states = self.embeddings(input_ids, inputs_embeds, sizes.hidden, level)
        check_mask(attention_mask, *hidden_states.shape[:2])
        if routing is not None and routing.share < 1:
            kwargs |= self._routed(routing, hidden_states, attention_mask)
        if position_ids is None:
            position_ids = torch.arange(hidden_states.shape[1], device=hidden_states.device).unsqueeze(0)
        masks = attention_mask
        if not isinstance(masks, dict):
            arguments = {"config": self.config, "inputs_embeds": hidden_states, "attention_mask": attention_mask}
            masks = {
                "full_attention": create_bidirectional_mask(**arguments),
                "sliding_attention": create_bidirectional_sliding_window_mask(**arguments),
            }
        types = set(self.config.layer_types)
        positions = {name: self.rotary_emb(hidden_states, position_ids, name) for name in types}
        for index, columns in run:
            layer = self.layers[index]
            kind = layer.attention_type
            hidden_states = layer(hidden_states, masks[kind], positions[kind], sizes.heads, columns, level, **kwargs)
        return BaseModelOutput(last_hidden_state=self.final_norm(hidden_states, level))


class DeltaModernBertForMaskedLM(BudgetedMaskedLMMixin, DeltaModernBertPreTrainedModel):
    """The encoder with ModernBERT's head for masked language modeling."""

    stock_class = ModernBertForMaskedLM
    _tied_weights_keys = {"decoder.weight": "model.embeddings.tok_embeddings.weight"}

    def __init__(self, config: DeltaModernBertConfig):
        super().__init__(config)
        self.model = DeltaModernBertModel(config)
        self.head = DeltaModernBertPredictionHead(config)
        self.decoder = _starts(NestedLinear(config.hidden_size, config.vocab_size, bias=config.decoder_bias), "deep")
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.decoder

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.decoder = value

    @property
    def ignore_index(self) -> int:
        return self.config.sparse_pred_ignore_index

    def predict(self, hidden_states: torch.Tensor, level: int) -> torch.Tensor:
        return self.decoder(self.head(hidden_states, level))


class DeltaModernBertForSequenceClassification(BudgetedClassifierMixin, DeltaModernBertPreTrainedModel):
    """The encoder with ModernBERT's classifier of texts."""

    stock_class = ModernBertForSequenceClassification

    def __init__(self, config: DeltaModernBertConfig):
        super().__init__(config)
        self.model = DeltaModernBertModel(config)
        self.head = DeltaModernBertPredictionHead(config)
        self.drop = nn.Dropout(config.classifier_dropout)
        self.classifier = _starts(NestedLinear(config.hidden_size, config.num_labels), "last")
        self.post_init()

    def classify(
        self, outputs: BaseModelOutput, attention_mask: torch.Tensor | None, level: int | str | None
    ) -> torch.Tensor:
        hidden_states = outputs.last_hidden_state
        if self.config.classifier_pooling == "cls":
            pooled = hidden_states[:, 0]
        elif attention_mask is None:
            pooled = hidden_states.mean(dim=1)
        else:
            counted = attention_mask.unsqueeze(-1)
            pooled = (hidden_states * counted).sum(dim=1) / counted.sum(dim=1)
        return self.classifier(self.drop(self.head(pooled, self.config.level_index(level))))


DeltaModernBertModel.register_for_auto_class("AutoModel")
DeltaModernBertForMaskedLM.register_for_auto_class("AutoModelForMaskedLM")
DeltaModernBertForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")

__all__ = ["DeltaModernBertForMaskedLM", "DeltaModernBertForSequenceClassification", "DeltaModernBertModel"]
