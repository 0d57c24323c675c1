"""The blocks of the first Matryoshka GPT, which are those of GPT-2 without gains.

Learned positions, ReLU networks with biases, norms without weights, and token embeddings that are normed where they
are read, as input and as head.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.initialization import no_init_weights

from .configuration_matryoshka_gpt import MatryoshkaGPTConfig
from .nested_layers import NestedEmbedding, NestedLinear


class PlainNorm(nn.Module):
    """Layer norm without weights over however many leading features the input has."""

    def __init__(self, eps: float):
        super().__init__()
        self.eps = eps

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(input, input.shape[-1:], eps=self.eps)


class NormedEmbedding(NestedEmbedding):
    """A table whose rows are normed, over the columns that are read."""

    # A low-rank update of the weights is none of what it computes: LoRA refuses it.
    normed_weight = True

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None, eps: float):
        super().__init__(num_embeddings, embedding_dim, padding_idx)
        self.eps = eps

    def forward(self, input: torch.Tensor, columns: int | None = None) -> torch.Tensor:
        found = super().forward(input, columns)
        return F.layer_norm(found, found.shape[-1:], eps=self.eps)


class NormedHead(NestedLinear):
    """A linear layer without bias whose rows are normed, over the columns that are read."""

    normed_weight = True

    def __init__(self, in_features: int, out_features: int, eps: float):
        super().__init__(in_features, out_features, bias=False)
        self.eps = eps

    def forward(self, input: torch.Tensor, rows: int | None = None) -> torch.Tensor:
        weight = self.weight[:rows, : input.shape[-1]]
        return F.linear(input, F.layer_norm(weight, weight.shape[-1:], eps=self.eps))


class PlainMLP(nn.Module):
    """`down(act(up))` with biases and the leading columns."""

    def __init__(self, config: MatryoshkaGPTConfig):
        super().__init__()
        self.up_proj = NestedLinear(config.hidden_size, config.intermediate_size)
        self.down_proj = NestedLinear(config.intermediate_size, config.hidden_size)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor, columns: int) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.up_proj(hidden_states, columns)), hidden_states.shape[-1])


def as_gpt2(model: PreTrainedModel, state: dict[str, torch.Tensor]) -> PreTrainedModel:
    """A `GPT2Model` or `GPT2LMHeadModel` that computes what a Matryoshka GPT of these blocks does at its full size.

    Args:
        model (`PreTrainedModel`): The Matryoshka GPT.
        state (`dict[str, torch.Tensor]`): Its weights, heads one after the other.
    """
    config = model.config
    stock = GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.max_position_embeddings,
        n_embd=config.hidden_size,
        n_layer=config.num_hidden_layers,
        n_head=config.num_attention_heads,
        n_inner=config.intermediate_size,
        activation_function=config.hidden_act,
        attn_pdrop=config.attention_dropout,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        layer_norm_epsilon=config.rms_norm_eps,
        initializer_range=config.initializer_range,
        use_cache=config.use_cache,
        pad_token_id=config.pad_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        dtype=config.dtype,
    )
    stock._attn_implementation = config._attn_implementation
    has_head = model.get_output_embeddings() is not None
    with no_init_weights():
        gpt2 = (GPT2LMHeadModel if has_head else GPT2Model)(stock)
    before = "model." if has_head else ""
    state = {name.removeprefix(before): tensor for name, tensor in state.items()}
    tokens = state["embed_tokens.weight"]
    found = {
        "wte.weight": F.layer_norm(tokens, tokens.shape[-1:], eps=config.rms_norm_eps),
        "wpe.weight": state["embed_positions.weight"],
    }
    found |= _no_gain("ln_f", tokens)
    for number in range(config.num_hidden_layers):
        own, their = f"layers.{number}", f"h.{number}"
        joined = torch.cat([state[f"{own}.self_attn.{name}_proj.weight"] for name in "qkv"])
        found[f"{their}.attn.c_attn.weight"] = joined.T
        found[f"{their}.attn.c_attn.bias"] = joined.new_zeros(len(joined))
        for layer, name in (("attn.c_proj", "self_attn.o_proj"), ("mlp.c_fc", "mlp.up_proj")):
            found |= _transposed(f"{their}.{layer}", state, f"{own}.{name}")
        found |= _transposed(f"{their}.mlp.c_proj", state, f"{own}.mlp.down_proj")
        found |= _no_gain(f"{their}.ln_1", tokens) | _no_gain(f"{their}.ln_2", tokens)
    inside = "transformer." if has_head else ""
    whole = {inside + name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in found.items()}
    gpt2.load_state_dict(whole, strict=False, assign=True)
    gpt2.tie_weights()
    return gpt2


def _transposed(name: str, state: dict[str, torch.Tensor], own: str) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": state[f"{own}.weight"].T, f"{name}.bias": state[f"{own}.bias"]}


def _no_gain(name: str, like: torch.Tensor) -> dict[str, torch.Tensor]:
    width = like.shape[-1]
    return {f"{name}.weight": like.new_ones(width), f"{name}.bias": like.new_zeros(width)}


__all__ = ["NormedEmbedding", "NormedHead", "PlainMLP", "PlainNorm", "as_gpt2"]
