"""Token routing in training: which share of the tokens a step computes at the size of each budget."""

import random
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from ..modeling.token_routing import TokenRouting
from .losses.budget_penalty import budget_penalty_loss


def draw_share(seed: int, step: int, shares: Sequence[float]) -> float:
    """One of `shares`, by the seed and the step alone, so that a resumed run draws what an uninterrupted one would."""
    return random.Random(f"{seed}-tokens-{step}").choice(shares)


def preview_loss(routings: Sequence[tuple[int, TokenRouting]]) -> torch.Tensor:
    """Mean of the losses of the previews over the passes of a step, each with its level."""
    return torch.stack([routing.preview_loss() for _, routing in routings]).mean()


def routing_penalty(
    encoder: PreTrainedModel, routings: Sequence[tuple[int, TokenRouting]], length: int
) -> torch.Tensor:
    """Mean of [`budget_penalty_loss`] over the passes of a step: the soft shares against the share that was drawn.

    Args:
        encoder (`PreTrainedModel`): The model.
        routings (`Sequence`): The passes, each with its level.
        length (`int`): Tokens of a text.
    """
    losses = []
    for level, routing in routings:
        routed = encoder.routed_macs(level, length)
        fixed = encoder.cost(level, length)["macs"] - sum(routed)
        target = (fixed + routing.share * sum(routed)) / (fixed + sum(routed))
        losses.append(budget_penalty_loss(torch.stack(routing.soft_shares), routed, fixed, target))
    return torch.stack(losses).mean()
