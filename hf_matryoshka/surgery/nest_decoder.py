"""A stock Llama as a Matryoshka GPT, which computes the same at its full size."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedModel

from ..modeling import MatryoshkaGPTConfig, MatryoshkaGPTForCausalLM
from .decoder_importance import DecoderImportance


# What both configs call the same.
SHARED_FIELDS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_parameters"),
    *("attention_bias", "mlp_bias", "attention_dropout", "initializer_range", "tie_word_embeddings", "use_cache"),
    *("pad_token_id", "bos_token_id", "eos_token_id"),
)


@torch.no_grad()
def nest_decoder(
    model: PreTrainedModel,
    doll_sizes: Sequence[int],
    importance: DecoderImportance | None = None,
    **options: Any,
) -> MatryoshkaGPTForCausalLM:
    """A Llama with levels. At its full size it computes what `model` computes; the smaller levels are slices that were
    not trained yet.

    With `importance` the channels of the residual stream, the feed-forward neurons, and the channels of the values or,
    with `nested_heads="heads"`, the heads are sorted, the most important first, so that a slice keeps the best of
    them. The channels of queries and keys stay with their frequencies.

    Args:
        model (`LlamaForCausalLM`): The model; it is left alone.
        doll_sizes (`Sequence[int]`): Widths of the levels, smallest first, the last the hidden size.
        importance ([`DecoderImportance`], *optional*): From [`measure_decoder_importance`] of this model.
        options: Further fields of a [`MatryoshkaGPTConfig`] that concern the levels: `nested_heads`, `rope_order`,
            `doll_intermediate_sizes`, `doll_layers`, `layer_order`, `nesting`.

    Returns:
        [`MatryoshkaGPTForCausalLM`]: A new model on the same device, in the mode of `model`.

    Raises:
        ValueError: If the model is no Llama, the sizes do not nest, or the importance is that of another model.
    """
    config = nested_config(model, doll_sizes, **options)
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    if importance is not None:
        _check(importance, config)
        _sort(state, importance, config)
    with torch.device("meta"):
        nested = MatryoshkaGPTForCausalLM(config)
    state = nested.from_stock_order(state)
    nested.load_state_dict(state, assign=True)
    nested.tie_weights()
    nested.generation_config = type(model.generation_config).from_dict(model.generation_config.to_dict())
    return nested.train(model.training)


def nested_config(model: PreTrainedModel, doll_sizes: Sequence[int], **options: Any) -> MatryoshkaGPTConfig:
    """The config that [`nest_decoder`] gives a Llama.

    Args:
        model, doll_sizes, options: As in [`nest_decoder`].

    Raises:
        ValueError: If the model is no Llama, or the sizes do not nest.
    """
    if not isinstance(model, LlamaForCausalLM):
        raise ValueError(f"{type(model).__name__} is not Llama-shaped; give a LlamaForCausalLM")
    fields = {name: getattr(model.config, name) for name in SHARED_FIELDS}
    head_dim = model.model.layers[0].self_attn.head_dim
    return MatryoshkaGPTConfig(**fields, head_dim=head_dim, doll_sizes=list(doll_sizes), **options)


def _check(importance: DecoderImportance, config: MatryoshkaGPTConfig) -> None:
    shapes = {
        "residual": [importance.residual.shape, (config.hidden_size,)],
        "neurons": [(len(importance.neurons), *importance.neurons[0].shape)],
        "values": [(len(importance.values), *importance.values[0].shape)],
    }
    shapes["neurons"].append((config.num_hidden_layers, config.intermediate_size))
    shapes["values"].append((config.num_hidden_layers, config.num_key_value_heads, config.head_dim))
    for name, (found, wanted) in shapes.items():
        if tuple(found) != tuple(wanted):
            raise ValueError(
                f"importance has {name} of shape {tuple(found)}, but the model has {tuple(wanted)}; measure it on "
                "this model"
            )


def _sort(state: dict[str, torch.Tensor], importance: DecoderImportance, config: MatryoshkaGPTConfig) -> None:
    """Sorts the weights of a Llama in place, without changing what it computes."""
    residual = _descending(importance.residual)
    for name, tensor in state.items():
        reads = name.endswith(("embed_tokens.weight", "lm_head.weight"))
        reads = reads or any(
            f".{leaf}.weight" in name for leaf in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
        )
        if reads:
            state[name] = tensor[:, residual.to(tensor.device)]
        elif "norm" in name or ".o_proj." in name or ".down_proj." in name:
            state[name] = tensor[residual.to(tensor.device)]
    groups, head_dim = config.num_key_value_heads, config.head_dim
    shared = config.num_attention_heads // groups
    for number in range(config.num_hidden_layers):
        neurons = _descending(importance.neurons[number])
        path = f"model.layers.{number}.mlp"
        for leaf in ("gate_proj.weight", "up_proj.weight", "gate_proj.bias", "up_proj.bias"):
            _take(state, f"{path}.{leaf}", neurons, 0)
        _take(state, f"{path}.down_proj.weight", neurons, 1)
        scores, path = importance.values[number], f"model.layers.{number}.self_attn"
        if config.nested_heads == "heads":
            order = _descending(scores.sum(1))
            keys = (order[:, None] * head_dim + torch.arange(head_dim)).flatten()
            heads = (order[:, None] * shared + torch.arange(shared)).flatten()
            queries = (heads[:, None] * head_dim + torch.arange(head_dim)).flatten()
            for leaf in ("k_proj", "v_proj"):
                _take(state, f"{path}.{leaf}.weight", keys, 0)
                _take(state, f"{path}.{leaf}.bias", keys, 0)
            _take(state, f"{path}.q_proj.weight", queries, 0)
            _take(state, f"{path}.q_proj.bias", queries, 0)
        else:
            order = torch.stack([_descending(score) for score in scores])
            values = (torch.arange(groups)[:, None] * head_dim + order).flatten()
            _take(state, f"{path}.v_proj.weight", values, 0)
            _take(state, f"{path}.v_proj.bias", values, 0)
            order = order.repeat_interleave(shared, dim=0)
            queries = (torch.arange(groups * shared)[:, None] * head_dim + order).flatten()
        _take(state, f"{path}.o_proj.weight", queries, 1)


def _take(state: dict[str, torch.Tensor], name: str, order: torch.Tensor, axis: int) -> None:
    if name in state:
        state[name] = state[name].index_select(axis, order.to(state[name].device))


def _descending(scores: torch.Tensor) -> torch.Tensor:
    return torch.argsort(scores, descending=True, stable=True)
