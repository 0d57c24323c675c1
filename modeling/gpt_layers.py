"""The layers of the Matryoshka GPT: those of Llama or of GPT-2, each at its leading part."""

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward

from .configuration_matryoshka_gpt import DollSizes, MatryoshkaGPTConfig
from .gpt2_blocks import PlainMLP, PlainNorm
from .nested_layers import Glue, NestedGroupRMSNorm, NestedLinear, NestedRMSNorm
from .nested_rope import rotate_pairs


def slots_of(sizes: DollSizes) -> dict[str, int]:
    """Which part of a projection a doll reads; nothing for a leading one."""
    return {"row_slot": sizes.slot, "column_slot": sizes.slot} if sizes.slot else {}


class MatryoshkaGPTMLP(nn.Module):
    """`down(act(gate) * up)` (arXiv 2002.05202) with the leading columns."""

    def __init__(self, config: MatryoshkaGPTConfig):
        super().__init__()
        width, columns, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = NestedLinear(width, columns, bias=bias)
        self.up_proj = NestedLinear(width, columns, bias=bias)
        self.down_proj = NestedLinear(columns, width, bias=bias)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor, columns: int, **slots: int) -> torch.Tensor:
        gate = self.act_fn(self.gate_proj(hidden_states, columns, **slots))
        return self.down_proj(gate * self.up_proj(hidden_states, columns, **slots), hidden_states.shape[-1], **slots)


class MatryoshkaGPTAttention(nn.Module):
    """Causal self-attention with the leading heads, or the leading channels of all heads.

    Where heads become narrower, rows of the projections are sorted by channel and then by head, so that a doll has
    leading rows there, too; otherwise by head and then by channel.
    """

    def __init__(self, config: MatryoshkaGPTConfig, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.by_channel = config.nested_heads == "head_dim"
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.attention_dropout = config.attention_dropout
        self.is_causal = True
        width, bias = config.hidden_size, config.attention_bias
        queries, keys = (heads * config.head_dim for heads in (config.num_attention_heads, config.num_key_value_heads))
        self.q_proj = NestedLinear(width, queries, bias=bias)
        self.k_proj = NestedLinear(width, keys, bias=bias)
        self.v_proj = NestedLinear(width, keys, bias=bias)
        self.o_proj = NestedLinear(queries, width, bias=bias or config.blocks == "gpt2")

    def _heads(self, states: torch.Tensor, heads: int, head_dim: int) -> torch.Tensor:
        """`(batch, length, heads * head_dim)` as `(batch, heads, length, head_dim)`."""
        if self.by_channel:
            return states.unflatten(-1, (head_dim, heads)).permute(0, 3, 1, 2)
        return states.unflatten(-1, (heads, head_dim)).transpose(1, 2)

    def forward(
        self,
        hidden_states: torch.Tensor,
        sizes: DollSizes,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None,
        attention_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        cache_index: int | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        heads, groups, channels = sizes.heads, sizes.key_value_heads, sizes.head_dim
        slots = slots_of(sizes)
        query = self._heads(self.q_proj(hidden_states, heads * channels, **slots), heads, channels)
        key = self._heads(self.k_proj(hidden_states, groups * channels, **slots), groups, channels)
        value = self._heads(self.v_proj(hidden_states, groups * channels, **slots), groups, channels)
        if position_embeddings is not None:
            query, key = rotate_pairs(query, *position_embeddings), rotate_pairs(key, *position_embeddings)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx if cache_index is None else cache_index)
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.attention_dropout if self.training else 0.0
        output, weights = attention(
            self, query, key, value, attention_mask, dropout=dropout, scaling=channels**-0.5, **kwargs
        )
        output = output.transpose(-1, -2).flatten(-2) if self.by_channel else output.flatten(-2)
        return self.o_proj(output, hidden_states.shape[-1], **slots), weights


def make_norm(config: MatryoshkaGPTConfig) -> nn.Module:
    """The norm of the blocks of a config."""
    if config.blocks == "gpt2":
        return PlainNorm(config.rms_norm_eps)
    if config.norm_groups > 1:
        size = config.hidden_size // config.norm_groups
        return NestedGroupRMSNorm(config.hidden_size, size, eps=config.rms_norm_eps)
    return NestedRMSNorm(config.hidden_size, eps=config.rms_norm_eps)


def make_glue(config: MatryoshkaGPTConfig) -> nn.Module:
    """A linear map of the residual's width, or nothing."""
    return Glue(config.hidden_size) if config.glue else nn.Identity()


class MatryoshkaGPTDecoderLayer(GradientCheckpointingLayer):
    """Attention and a network, each added to the residual stream."""

    def __init__(self, config: MatryoshkaGPTConfig, layer_idx: int):
        super().__init__()
        self.self_attn = MatryoshkaGPTAttention(config, layer_idx)
        self.mlp = PlainMLP(config) if config.blocks == "gpt2" else MatryoshkaGPTMLP(config)
        self.input_layernorm = make_norm(config)
        self.post_attention_layernorm = make_norm(config)
        self.attention_input_glue, self.attention_output_glue = make_glue(config), make_glue(config)
        self.mlp_input_glue, self.mlp_output_glue = make_glue(config), make_glue(config)

    def forward(self, hidden_states: torch.Tensor, sizes: DollSizes, **kwargs) -> torch.Tensor:
        own = {"slot": sizes.slot} if sizes.slot else {}
        inputs = self.attention_input_glue(self.input_layernorm(hidden_states, **own))
        mixed, _ = self.self_attn(inputs, sizes, **kwargs)
        hidden_states = hidden_states + self.attention_output_glue(mixed)
        inputs = self.mlp_input_glue(self.post_attention_layernorm(hidden_states, **own))
        return hidden_states + self.mlp_output_glue(self.mlp(inputs, sizes.intermediate, **slots_of(sizes)))


__all__ = ["MatryoshkaGPTAttention", "MatryoshkaGPTDecoderLayer", "MatryoshkaGPTMLP", "make_glue", "make_norm"]
