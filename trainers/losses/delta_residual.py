"""Delta residual: what a budget adds to the smallest one explains what the full model adds."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F


def delta_residual_loss(
    states: Sequence[torch.Tensor],
    base_states: Sequence[torch.Tensor],
    targets: Sequence[torch.Tensor],
    mask: torch.Tensor | None = None,
    floor: float = 1e-3,
) -> torch.Tensor:
    """Share of the step from the base to the full model that a budget does not explain.

    `L = mean over taps t of |R_t - D_t|^2 / |R_t|^2`, with what is to be explained, `R_t = sg(H_full^t - H_base^t)`,
    and what the budget adds, `D_t = H_b^t - sg H_base^t`; the squares are summed over all tokens. It is 1 for a budget
    that adds nothing and 0 for one that reaches the full model. A slice adds to the base as the residual branch of a
    ControlNet (arXiv 2302.05543) adds to its locked model. The base cancels in the numerator: it sets the scale, and
    has no gradient here as a model of its own. What a budget shares with it has one; where the base shall stay, its
    updates are blocked ([`~trainers.three_phases.PhaseUpdates`]).

    Where the budget's residual stream is narrower than the full one, it is compared with the leading columns; to
    columns that the base does not have it adds nothing.

    Args:
        states (`Sequence[torch.Tensor]` of shapes `(batch, length, width)`): The budget's, one a tap layer.
        base_states (`Sequence[torch.Tensor]` of shapes `(batch, length, base_width)`): The smallest budget's, without
            gradient; after its last layer it stays as it is.
        targets (`Sequence[torch.Tensor]` of shapes `(batch, length, full_width)`): The full model's, without gradient.
        mask (`torch.BoolTensor` of shape `(batch, length)`, *optional*): The tokens that count; all by default.
        floor (`float`, *optional*, defaults to 0.001): The denominator is at least so large a part of `|H_full^t|^2`:
            where base and full model compute the same, as with gates at 0, their difference would else be blown up.

    Returns:
        `torch.Tensor`: A scalar.
    """
    shares = []
    for state, base, target in zip(states, base_states, targets, strict=True):
        width = state.shape[-1]
        target = target[..., :width].detach().float()
        base = F.pad(base.detach().float(), (0, width - base.shape[-1]))
        missing, added = target - base, state.float() - base
        left, whole, scale = (_squares(value, mask) for value in (missing - added, missing, target))
        least = torch.finfo(scale.dtype).tiny
        shares.append(left / torch.maximum(whole, floor * scale).clamp(min=least))
    return torch.stack(shares).mean()


def _squares(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    squares = values.square().sum(dim=-1)
    return squares.sum() if mask is None else (squares * mask).sum()
