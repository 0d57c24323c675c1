"""Several trained decoders side by side in one, and linear glue between them that can be folded away."""

from collections.abc import Sequence

import torch
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from ..modeling import MatryoshkaGPTConfig, MatryoshkaGPTForCausalLM
from .nest_decoder import SHARED_FIELDS


# What is as many times as large in the whole as there are parts.
SUMMED = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
# What may differ between parts without changing what they compute.
FREE = ("initializer_range", "attention_dropout", "use_cache", "max_position_embeddings")


@torch.no_grad()
def combine(
    models: Sequence[PreTrainedModel],
    weights: Sequence[float] | None = None,
    tokenizers: Sequence[PreTrainedTokenizerBase] | None = None,
    glue: bool = True,
) -> MatryoshkaGPTForCausalLM:
    r"""One decoder that holds others of the same shape side by side: its logits are the weighted sum of theirs.

    Weights are block-diagonal, embeddings and heads lie next to each other, and every norm is taken of each part on
    its own (an ordinary norm over the whole would mix them); the sum is in the last norm, so that the head stays tied.
    The softmax of a mean of logits is a product of experts. What is zero between the parts can be trained, or, first,
    linear maps after each norm and each block alone ([`GlueTrainer`]), which [`fold_glue`] then takes away.

    Args:
        models (`Sequence[PreTrainedModel]`): Two or more `LlamaForCausalLM`, or [`MatryoshkaGPTForCausalLM`] of which
            the largest level is taken; of one shape and vocabulary.
        weights (`Sequence[float]`, *optional*): What each part's logits are multiplied with; by default all with the
            same, so that the logits are their mean. One 1 and zeros give exactly one of the models.
        tokenizers (`Sequence[PreTrainedTokenizerBase]`, *optional*): Those of the models, to see that they agree.
        glue (`bool`, *optional*, defaults to `True`): Whether to put the maps in, which are the identity at first.

    Returns:
        [`MatryoshkaGPTForCausalLM`]: With `norm_groups` as many as there are models, in evaluation mode.

    Raises:
        ValueError: If there are fewer than two models, one is no Llama, or their shapes or vocabularies differ.
    """
    if len(models) < 2:
        raise ValueError(f"combine takes two models or more, but got {len(models)}")
    parts = [model.to_stock() if isinstance(model, MatryoshkaGPTForCausalLM) else model for model in models]
    for number, part in enumerate(parts):
        if not isinstance(part, LlamaForCausalLM):
            raise ValueError(f"model {number} is a {type(part).__name__}, which is not Llama-shaped")
    _check_shapes(parts)
    _check_vocabularies(tokenizers, len(parts))
    weights = [1 / len(parts)] * len(parts) if weights is None else list(weights)
    if len(weights) != len(parts):
        raise ValueError(f"there are {len(weights)} weights for {len(parts)} models")
    first = parts[0]
    fields = {name: getattr(first.config, name) for name in SHARED_FIELDS}
    fields |= {name: len(parts) * fields[name] for name in SUMMED}
    fields["max_position_embeddings"] = min(part.config.max_position_embeddings for part in parts)
    config = MatryoshkaGPTConfig(
        **fields,
        head_dim=first.model.layers[0].self_attn.head_dim,
        doll_sizes=[fields["hidden_size"]],
        nested_heads="heads",
        norm_groups=len(parts),
        glue=glue,
    )
    whole = MatryoshkaGPTForCausalLM(config).to(first.device, first.dtype)
    states = [part.state_dict() for part in parts]
    state = {name: _joined(name, [state[name] for state in states], weights) for name in states[0]}
    state = whole.from_stock_order(state)
    missing, unexpected = whole.load_state_dict(state, strict=False)
    assert not unexpected and all("glue" in name for name in missing)
    whole.tie_weights()
    whole.generation_config = type(first.generation_config).from_dict(first.generation_config.to_dict())
    return whole.eval()


@torch.no_grad()
def fold_glue(model: MatryoshkaGPTForCausalLM) -> MatryoshkaGPTForCausalLM:
    """The same model without its glue: each map goes into the weights of the layer before or after it. A head that was
    tied to the embeddings no longer is.

    Args:
        model ([`MatryoshkaGPTForCausalLM`]): A model with glue; it is left alone.

    Raises:
        ValueError: If it has no glue, or levels, whose slices would not be the same.
    """
    config = model.config
    if not config.glue:
        raise ValueError("the model has no glue to fold; its config says glue=False")
    if len(config.levels) > 1:
        raise ValueError(f"glue can be folded in a model of one level, but there are {', '.join(config.levels)}")
    folded = type(config).from_dict(config.to_dict() | {"glue": False, "tie_word_embeddings": False})
    folded._attn_implementation = config._attn_implementation
    plain = MatryoshkaGPTForCausalLM(folded).to(model.device, model.dtype)
    state = dict(model.state_dict())
    maps = {name.removesuffix(".weight"): state.pop(name) for name in list(state) if "_glue." in name}
    state["lm_head.weight"] = state["lm_head.weight"] @ maps["head_glue"]
    for number in range(config.num_hidden_layers):
        layer = f"model.layers.{number}"
        readers = {
            "attention_input": ("self_attn.q", "self_attn.k", "self_attn.v"),
            "mlp_input": ("mlp.gate", "mlp.up"),
        }
        for glue, names in readers.items():
            for name in names:
                path = f"{layer}.{name}_proj.weight"
                state[path] = state[path] @ maps[f"{layer}.{glue}_glue"]
        for glue, name in (("attention_output", "self_attn.o"), ("mlp_output", "mlp.down")):
            for leaf in ("weight", "bias"):
                path = f"{layer}.{name}_proj.{leaf}"
                if path in state:
                    state[path] = maps[f"{layer}.{glue}_glue"] @ state[path]
    plain.load_state_dict(state)
    plain.generation_config = type(model.generation_config).from_dict(model.generation_config.to_dict())
    return plain.train(model.training)


def _joined(name: str, tensors: list[torch.Tensor], weights: list[float]) -> torch.Tensor:
    """A tensor of the whole from those of the parts."""
    if "embed_tokens" in name or "lm_head" in name:
        return torch.cat(tensors, dim=1)
    if name == "model.norm.weight":
        return torch.cat([weight * tensor for weight, tensor in zip(weights, tensors, strict=True)])
    return torch.block_diag(*tensors) if tensors[0].ndim == 2 else torch.cat(tensors)


def _check_shapes(parts: list[LlamaForCausalLM]) -> None:
    names = [name for name in (*SHARED_FIELDS, "head_dim") if name not in FREE]
    names = [name for name in names if not name.endswith("_token_id")]
    for number, part in enumerate(parts[1:], start=1):
        for name in names:
            own, other = getattr(parts[0].config, name), getattr(part.config, name)
            if own != other:
                raise ValueError(
                    f"model {number} has {name} {other}, but model 0 has {own}; only models of one shape and "
                    "vocabulary can be combined"
                )


def _check_vocabularies(tokenizers: Sequence[PreTrainedTokenizerBase] | None, count: int) -> None:
    if tokenizers is None:
        return
    if len(tokenizers) != count:
        raise ValueError(f"there are {len(tokenizers)} tokenizers for {count} models")
    first = tokenizers[0].get_vocab()
    for number, tokenizer in enumerate(tokenizers[1:], start=1):
        vocabulary = tokenizer.get_vocab()
        token = next((token for token in {**first, **vocabulary} if first.get(token) != vocabulary.get(token)), None)
        if token is not None:
            raise ValueError(
                f"the tokenizers of model 0 and model {number} differ, for example in {token!r}; only models of one "
                "vocabulary can be combined"
            )
