"""Gates on what a level of a nested encoder has beyond a smaller one, folded into its weights."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from ..modeling.budgets import BudgetsMixin
from .encoder_layers import encoder_layers


class LayerDelta(NamedTuple):
    """What a layer of a level has beyond a smaller level.

    Args:
        heads, columns (`tuple[int, int]`): The first of its attention heads and feed-forward columns, and the one
            after the last.
        added (`bool`): Whether the smaller level does not run the layer at all.
    """

    heads: tuple[int, int]
    columns: tuple[int, int]
    added: bool


def scale_delta(model: PreTrainedModel, smaller: int | str, larger: int | str, alpha: float) -> PreTrainedModel:
    """Multiplies what a level adds to a smaller one by a gate, in the weights.

    A layer adds up what its heads and its feed-forward neurons give, so the larger level is the smaller one plus a
    delta. Its output weights are multiplied: the columns of `Wo` (BERT: `output.dense`) of the heads and neurons that
    only the larger level has; in a layer that the smaller level does not run, all that the larger one has, with the
    bias. The gate costs nothing at inference, and the model stays as exportable as it was.

    The smaller level, and all that is inside it, stay bit for bit as they are. Every level that has some of these
    weights sees the gate ([`levels_with_delta`]): gates are cumulative. With `alpha=1` nothing changes; with `alpha=0`
    the larger level computes the smaller one, except in the cases of [`inexact_gate_reason`].

    Args:
        model (`PreTrainedModel`): A Delta encoder, with or without a head; changed in place. Of a SentenceTransformer
            it is `model[0].model`.
        smaller, larger (`int` or `str`): The levels, the one inside the other.
        alpha (`float`): The gate, from 0 to 1.

    Returns:
        `PreTrainedModel`: The same model.

    Raises:
        ValueError: If the model is no Delta encoder or its weights cannot be changed, the levels do not exist, are
            not inside each other or differ in hidden size, or the gate is out of range; nothing is changed then.
    """
    check_gate(alpha)
    for part in delta_weights(model, smaller, larger):
        part.zero_() if alpha == 0 else part.mul_(alpha)
    return model


def inexact_gate_reason(model: PreTrainedModel, smaller: int | str, larger: int | str) -> str | None:
    """Why a gate of 0 on what a level has beyond a smaller one does not make it compute the smaller one; `None` where
    it does, up to the order of sums.

    Args:
        model (`PreTrainedModel`): A Delta encoder, with or without a head.
        smaller, larger (`int` or `str`): The levels, the one inside the other.

    Raises:
        ValueError: As [`scale_delta`] does; but levels of different hidden size, which it refuses, are a reason here.
    """
    config, smaller, larger = _checked(model, smaller, larger)
    small, large = config.level_sizes(smaller), config.level_sizes(larger)
    if small.hidden != large.hidden:
        return (
            f"the hidden states of {smaller} have width {small.hidden} and those of {larger} have {large.hidden} "
            "(residual='joint'), so their norms are taken over different numbers"
        )
    if config.budget_norms:
        return f"the norms of {smaller} and {larger} have gains of their own (budget_norms)"
    added = len(set(large.layers) - set(small.layers))
    if added and config.stock_model_type == "bert":
        return (
            f"{larger} runs {added} more layer{'s' * (added > 1)} than {smaller}, and a layer of BERT normalises its "
            "output also when it adds nothing to it"
        )
    return None


def levels_with_delta(model: PreTrainedModel, smaller: int | str, larger: int | str) -> list[str]:
    """Names of the levels that have any of what a level has beyond a smaller one: a gate on it changes these.

    Raises:
        ValueError: As [`scale_delta`] does.
    """
    config, smaller, larger = _checked(model, smaller, larger)
    delta = _delta(config, smaller, larger)

    def has(level: str) -> bool:
        sizes = config.level_sizes(level)
        parts = [
            part
            for layer, columns in zip(sizes.layers, sizes.intermediate, strict=True)
            if layer in delta
            for part in ((*delta[layer].heads, sizes.heads), (*delta[layer].columns, columns))
        ]
        return any(start < min(stop, own) for start, stop, own in parts)

    return [level for level in config.levels if has(level)]


def longest_chain(config: BudgetsMixin) -> list[str]:
    """Names of the levels of the longest chain, each inside the next, that ends with the largest level."""
    chains: dict[str, list[str]] = {}
    for level in config.levels:  # what is inside a level is listed before it
        inside = [chain for other, chain in chains.items() if config.fits_in(other, level)]
        chains[level] = [*max(inside, key=len, default=[]), level]
    return chains[config.levels[-1]]


def check_chain(model: PreTrainedModel, chain: Sequence[int | str] | None = None) -> list[str]:
    """Names of the levels of a chain, by default the longest one of the model.

    Args:
        model (`PreTrainedModel`): A Delta encoder, with or without a head.
        chain (`Sequence`, *optional*): Levels, each inside the next.

    Raises:
        ValueError: If there are fewer than two levels, or there can be no gate between two neighbours, see
            [`scale_delta`].
    """
    encoder_layers(model)
    config = _config(model)
    names = longest_chain(config) if chain is None else [config.level_name(level) for level in chain]
    if len(names) < 2:
        raise ValueError(
            f"a chain needs two levels or more, each inside the next, but has {', '.join(names) or 'none'}; the "
            f"levels of the model are {', '.join(config.levels)}"
        )
    for smaller, larger in zip(names, names[1:], strict=False):
        delta_weights(model, smaller, larger)
    return names


def delta_weights(model: PreTrainedModel, smaller: int | str, larger: int | str) -> list[torch.Tensor]:
    """Views of the output weights, and of the biases of added layers, that a level has beyond a smaller one.

    Raises:
        ValueError: As [`scale_delta`] does.
    """
    config, smaller, larger = _checked(model, smaller, larger)
    if config.level_sizes(smaller).hidden != config.level_sizes(larger).hidden:
        raise ValueError(f"{inexact_gate_reason(model, smaller, larger)}; a gate needs residual='full'")
    layers, parts = encoder_layers(model), []
    for layer, delta in _delta(config, smaller, larger).items():
        for units, (start, stop) in ((layers[layer].heads, delta.heads), (layers[layer].neurons, delta.columns)):
            parts.append(units.output.weight.detach()[:, start * units.size : stop * units.size])
            if delta.added and units.output.bias is not None:
                parts.append(units.output.bias.detach())
    return [part for part in parts if part.numel()]


def check_gate(alpha: float) -> None:
    """Raise `ValueError` unless a gate is in its range."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"a gate must be from 0 (the smaller level) to 1 (as trained), but is {alpha}")


def _config(model: PreTrainedModel) -> BudgetsMixin:
    if not hasattr(model.config, "layer_order"):
        raise ValueError(f"{type(model).__name__} has no levels to put a gate between; give a Delta encoder")
    return model.config


def _checked(model: PreTrainedModel, smaller: int | str, larger: int | str) -> tuple[BudgetsMixin, str, str]:
    """The config of a model and the names of two levels, the one inside the other."""
    encoder_layers(model)  # an architecture, or weights, that cannot be changed
    config = _config(model)
    smaller, larger = config.level_name(smaller), config.level_name(larger)
    if smaller == larger or not config.fits_in(smaller, larger):
        raise ValueError(
            f"level {smaller} is not inside {larger}; a gate is between a level and a larger one that contains it"
        )
    return config, smaller, larger


def _delta(config: BudgetsMixin, smaller: str, larger: str) -> dict[int, LayerDelta]:
    """What each layer of a level has beyond a smaller level."""
    small, large = config.level_sizes(smaller), config.level_sizes(larger)
    kept = dict(zip(small.layers, small.intermediate, strict=True))
    return {
        layer: LayerDelta(
            (small.heads if layer in kept else 0, large.heads), (kept.get(layer, 0), columns), layer not in kept
        )
        for layer, columns in zip(large.layers, large.intermediate, strict=True)
    }
