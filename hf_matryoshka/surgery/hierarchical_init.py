"""A nested encoder that starts from several sizes of a family."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from .. import modeling
from ..modeling.budgets import Budget, BudgetsMixin
from .encoder_layers import ParallelUnits, encoder_layers
from .grow import check_model, grow, parts
from .grow_sizes import Sizes, check_sizes, head_dim, is_bert, make_config


# What the checkpoints of a family have in common.
FAMILY_FIELDS = (
    *("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"),
    *("hidden_act", "hidden_activation", "attention_bias", "mlp_bias", "norm_bias", "rope_parameters"),
)


def hierarchical_init(
    models: Sequence[PreTrainedModel],
    budgets: Sequence[Sequence] | None = None,
    gates: bool = False,
    head: str = "closest",
) -> PreTrainedModel:
    """A nested model of the largest shape from checkpoints of one family, smallest first: mini, base, large.

    All its levels compute what the smallest checkpoint computes, which is grown to the hidden size of the largest
    ([`grow`]). What they have beyond it, further heads, feed-forward neurons and layers, reads the hidden states with
    the weights of the larger checkpoints: those between the second and the first from the second, and so on. What it
    writes is 0 at first, so that training starts from the smallest model and not from a sum of unrelated ones. The
    larger checkpoints were trained on hidden states of their own; whether their weights are a better start than random
    ones is to be measured. The levels of a BERT that end at different layers get norms of their own (`budget_norms`).

    Args:
        models (`Sequence[PreTrainedModel]`):
            Two checkpoints or more, smallest first, all encoders or all with the same head, stock or Delta.
        budgets (`Sequence[Sequence]`, *optional*):
            The levels, `[width, heads, depth]`; the smallest is the smallest checkpoint. By default one level for each
            checkpoint.
        gates (`bool`, *optional*, defaults to `False`):
            Whether the model has gates ([`DeltaBertConfig`], `delta_gates`), all 0. Then what the larger checkpoints
            write is kept as well, and training opens it.
        head (`str`, *optional*, defaults to `"closest"`):
            As for [`grow`].

    Returns:
        `PreTrainedModel`: A Delta model.

    Raises:
        ValueError: If the checkpoints are not of one family, have other vocabularies, heads of other width or
            shrinking shapes, or the smallest budget is not the smallest checkpoint.
    """
    if len(models) < 2:
        raise ValueError("give two checkpoints or more, the smallest first")
    for model in models:
        check_model(model)
    for index in range(1, len(models)):
        _check_family(models[0].config, models[index - 1], models[index], index)
    nested = [_nested(model, gates) for model in models]
    shapes = [Sizes.of(model.config) for model in nested]
    small, largest = nested[0].config, shapes[-1]
    widths = [shape.intermediate_size for shape in shapes]
    widths[0] += check_sizes(nested[0], largest, head)
    chain = [
        [width / largest.intermediate_size, shape.num_attention_heads, shape.num_hidden_layers]
        for width, shape in zip(widths, shapes, strict=True)
    ]
    if budgets is not None:
        if Budget.parse(budgets[0]).name != Budget.parse(chain[0]).name:
            raise ValueError(
                f"the smallest budget is {list(budgets[0])}, but must be the smallest checkpoint, {chain[0]}"
            )
        chain = [list(entry) for entry in budgets]
    changes: dict[str, Any] = {"budgets": chain, "full_intermediate_size": largest.intermediate_size}
    changes |= {field.name: getattr(largest, field.name) for field in fields(largest)}
    if not is_bert(small):
        changes["layer_types"] = nested[-1].config.layer_types
    grown = grow(
        nested[0], make_config(type(small), {**small.to_dict(), "per_layer_config": None, **changes}), head=head
    )
    for index in range(1, len(models)):
        before = Sizes(**{**asdict(shapes[index - 1]), "intermediate_size": widths[index - 1]})
        _take_deltas(grown, nested[index], before, outputs=gates)
    for name, parameter in grown.named_parameters():
        if name.endswith(".gate"):
            parameter.data.zero_()
    depths = [grown.config.budget(level).depth for level in grown.config.levels]
    return _with_own_norms(grown, depths) if is_bert(small) and min(depths) < depths[-1] else grown


def _check_family(small: PreTrainedConfig, before: PreTrainedModel, model: PreTrainedModel, index: int) -> None:
    """Raise `ValueError` unless a checkpoint is a larger one of the same family."""
    kinds = [type(one).__name__.removeprefix("Delta") for one in (before, model)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"checkpoint {index} is a {kinds[1]}, but the one before it a {kinds[0]}; give models of one family with "
            "the same head"
        )
    new, old = model.config.to_dict(), small.to_dict()
    for name in FAMILY_FIELDS:
        if new.get(name) != old.get(name):
            raise ValueError(
                f"checkpoint {index} has {name} {new.get(name)}, but the first has {old.get(name)}; give checkpoints "
                "of one family, with one tokenizer"
            )
    if head_dim(model.config) != head_dim(small):
        raise ValueError(
            f"the heads of checkpoint {index} have width {head_dim(model.config)}, but those of the first have "
            f"{head_dim(small)}; the width of a head must be the same"
        )
    if not is_bert(small) and new["layer_types"][: len(before.config.layer_types)] != before.config.layer_types:
        raise ValueError(
            f"the layers of checkpoint {index} attend as {', '.join(new['layer_types'])}, which does not start like "
            f"those of the one before it, {', '.join(before.config.layer_types)}"
        )
    sizes = [Sizes.of(one.config) for one in (before, model)]
    for field in fields(Sizes):
        least, size = (getattr(one, field.name) for one in sizes)
        if size < least:
            raise ValueError(
                f"checkpoint {index} has {field.name} {size}, less than the {least} of the one before it; give the "
                "smallest first, each inside the next"
            )


def _nested(model: PreTrainedModel, gates: bool) -> PreTrainedModel:
    """A model as a Delta model with one level."""
    old, name = model.config, type(model).__name__.removeprefix("Delta")
    is_nested = isinstance(old, BudgetsMixin)
    sizes = old.level_sizes().intermediate if is_nested else (old.intermediate_size,) * old.num_hidden_layers
    widths = [size / max(sizes) for size in sizes]
    config = make_config(
        modeling.DeltaBertConfig if is_bert(old) else modeling.DeltaModernBertConfig,
        {
            **old.to_dict(),
            "per_layer_config": None,
            "intermediate_size": max(sizes),
            "full_intermediate_size": max(sizes),
            "budgets": [[widths, old.num_attention_heads, old.num_hidden_layers]],
            "residual": "full",
            "layer_order": None,
            "delta_gates": gates,
            "budget_norms": False,
            "token_routing": False,
        },
    )
    config._attn_implementation = old._attn_implementation
    nested = getattr(modeling, f"Delta{name}")._from_config(config, dtype=model.dtype, **parts(model))
    state = model.folded_state() if is_nested else model.state_dict()
    nested.load_state_dict({**nested.state_dict(), **state})
    return nested.to(model.device).train(model.training)


@torch.no_grad()
def _with_own_norms(grown: PreTrainedModel, depths: Sequence[int]) -> PreTrainedModel:
    """A BERT with further layers, the last of which has taken over the gains of the norm before them; in a level that
    ends earlier its own last layer must have them, so each level gets gains of its own."""
    config = make_config(type(grown.config), {**grown.config.to_dict(), "budget_norms": True})
    config._attn_implementation = grown.config._attn_implementation
    nested = type(grown)._from_config(config, dtype=grown.dtype, **parts(grown))
    nested.load_state_dict({**nested.state_dict(), **grown.state_dict()})
    norms = [layer.output.LayerNorm for layer in nested.base_model.encoder.layer]
    for level, depth in enumerate(depths):
        norm = norms[depth - 1]
        norm.level_weight[level] = norms[-1].weight - norm.weight
        norm.level_bias[level] = norms[-1].bias - norm.bias
    return nested.to(grown.device).train(grown.training)


@torch.no_grad()
def _take_deltas(grown: PreTrainedModel, larger: PreTrainedModel, before: Sizes, outputs: bool) -> None:
    """What a larger checkpoint has beyond the one before it, into the same places of the grown model: how its heads
    and neurons read the hidden states, and, if `outputs`, what they write."""
    layers = zip(encoder_layers(grown), encoder_layers(larger), strict=False)
    for number, (new, old) in enumerate(layers):
        known = number < before.num_hidden_layers
        _take_units(new.heads, old.heads, before.num_attention_heads if known else 0, outputs)
        _take_units(new.neurons, old.neurons, before.intermediate_size if known else 0, outputs)
        if not known and not is_bert(grown.config):
            layer, source = grown.base_model.layers[number], larger.base_model.layers[number]
            shrink = (grown.config.norm_eps / larger.config.norm_eps) ** 0.5
            for name in ("attn_norm", "mlp_norm"):
                norm, gain = layer.get_submodule(name), source.get_submodule(name).weight
                norm.weight[: len(gain)] = shrink * gain


def _take_units(new: ParallelUnits, old: ParallelUnits, first: int, outputs: bool) -> None:
    rows = slice(first * new.size, old.count * old.size)
    for projection, source in zip(new.inputs, old.inputs, strict=True):
        weight = projection.weight.unflatten(0, (new.blocks, -1))
        weight[:, rows, : source.in_features] = source.weight.unflatten(0, (old.blocks, -1))[:, rows]
        if source.bias is not None:
            bias = projection.bias.unflatten(0, (new.blocks, -1))
            bias[:, rows] = source.bias.unflatten(0, (old.blocks, -1))[:, rows]
    if outputs:
        new.output.weight[: old.output.out_features, rows] = old.output.weight[:, rows]
