"""Hidden states of several budgets after the same layers, and how far they are from those of the full one."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from .losses.delta_residual import delta_residual_loss
from .losses.feature_alignment import feature_alignment_loss


# Of one pass: before the first layer and after each.
States = tuple[torch.Tensor, ...]


def find_taps(config: PreTrainedConfig, tap_layers: list[int] | None) -> tuple[list[int], dict[int, list[int]]]:
    """The layers after which levels are compared.

    Args:
        config (`PreTrainedConfig`): With budgets.
        tap_layers (`list[int]`, *optional*): The layers; by default the last one of each level.

    Returns:
        `tuple[list[int], dict[int, list[int]]]`: All of them, and for each level but the full one those that it runs.

    Raises:
        ValueError: If the model has no such layer.
    """
    depth = config.num_hidden_layers
    layers = [config.level_sizes(level).layers for level in config.levels]
    for tap in tap_layers or []:
        if not 0 <= tap < depth:
            raise ValueError(f"tap_layers has {tap}, but the model has the layers 0 to {depth - 1}")
    taps = sorted(set(tap_layers or [run[-1] for run in layers]))
    return taps, {level: [tap for tap in taps if tap in run] for level, run in enumerate(layers[:-1])}


def tap_alignment(
    encoder: PreTrainedModel,
    taps: Mapping[int, Sequence[int]],
    states: Mapping[int, States],
    targets: States,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """Mean of [`feature_alignment_loss`] over levels.

    Args:
        encoder (`PreTrainedModel`): The model.
        taps (`Mapping[int, Sequence[int]]`): For each of these levels, the layers after which it is compared.
        states (`Mapping[int, tuple[torch.Tensor]]`): Hidden states of the levels.
        targets (`tuple[torch.Tensor]`): Those of the full budget.
        mask (`torch.BoolTensor` of shape `(batch, length)`, *optional*): The tokens that count.
    """
    last, losses = encoder.config.num_hidden_layers - 1, []
    for level, compared in taps.items():
        layers = encoder.config.level_sizes(level).layers
        own, wanted = [], []
        for tap in compared:
            state, target = states[level][layers.index(tap) + 1], targets[tap + 1]
            if tap == layers[-1] < last:
                # The level ends here, which may add a norm that is not between the layers of the full budget.
                with torch.no_grad():
                    target = encoder.exit_states(target[..., : state.shape[-1]])
            own.append(state)
            wanted.append(target)
        losses.append(feature_alignment_loss(own, wanted, mask))
    return torch.stack(losses).mean()


def tap_residual(
    encoder: PreTrainedModel,
    taps: Mapping[int, Sequence[int]],
    states: Mapping[int, States],
    base_states: States,
    targets: States,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """Mean of [`delta_residual_loss`] over levels.

    Args:
        base_states (`tuple[torch.Tensor]`): Hidden states of the smallest level.
        targets (`tuple[torch.Tensor]`): Those of the full budget, or of a teacher of its shape.

    The other arguments are those of [`tap_alignment`].
    """
    losses = []
    for level, compared in taps.items():
        width = encoder.config.level_sizes(level).hidden
        own, base, target = (
            [_exit_state(encoder, some, index, tap, width) for tap in compared]
            for index, some in ((level, states[level]), (0, base_states), (None, targets))
        )
        losses.append(delta_residual_loss(own, base, target, mask))
    return torch.stack(losses).mean()


def _exit_state(encoder: PreTrainedModel, states: States, level: int | None, tap: int, width: int) -> torch.Tensor:
    """The leading columns of what a level gives after its layers up to `tap`, as if it ended there.

    So the states of all levels are in the same coordinates, whether or not a level ends at the tap, which may add a
    norm. A level that ended before stays as it was at its end.
    """
    layers = encoder.config.level_sizes(level).layers
    done = sum(layer <= tap for layer in layers)
    state = states[done][..., :width]
    return state if done == len(layers) else encoder.exit_states(state, level)


def token_mask(inputs: dict[str, Any]) -> torch.Tensor | None:
    """The real tokens of a batch; `None` for packed rows, which have no such mask: there all but the few positions
    after the last document are real."""
    mask = inputs.get("attention_mask")
    return mask.bool() if isinstance(mask, torch.Tensor) and mask.ndim == 2 else None
