"""Monotonic upgrades: a larger budget should predict no token worse."""

from collections.abc import Mapping, Sequence

import torch

from .masked_lm import token_mean


def upgrade_hinge_loss(
    token_losses: Mapping[int, torch.Tensor], pairs: Sequence[tuple[int, int]], margin: float = 0.0
) -> torch.Tensor:
    """Hinge on every token that a larger budget predicts worse than a smaller one.

    `L = mean over pairs b < b' and tokens i of max(0, l_b'(i) - sg l_b(i) + margin)`; the smaller budget gets no
    gradient, so that it is not made worse. Why it is needed: early-exit networks are not conditionally monotone
    (Jazbec et al. 2023, arXiv 2306.02652). It makes violations rarer and guarantees nothing.

    Args:
        token_losses (`Mapping[int, torch.Tensor]` of shapes `(tokens,)`): Losses of the masked tokens, by level.
        pairs (`Sequence[tuple[int, int]]`): At least one pair of levels, the smaller inside the larger.
        margin (`float`, *optional*, defaults to 0.0): Nats by which the larger should be better.

    Returns:
        `torch.Tensor`: A scalar.
    """
    hinges = [(token_losses[large] - token_losses[small].detach() + margin).clamp(min=0) for small, large in pairs]
    return token_mean(torch.stack(hinges))
