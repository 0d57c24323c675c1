"""Cross-scale feature alignment."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F


def feature_alignment_loss(
    states: Sequence[torch.Tensor], targets: Sequence[torch.Tensor], mask: torch.Tensor | None = None
) -> torch.Tensor:
    """One minus the cosine of a budget's hidden states and the full model's, averaged over tokens and layers.

    `L = mean over taps t and tokens i of 1 - cos(H_b^t(i), sg H_full^t(i))`: the hint of FitNets (arXiv 1412.6550,
    Eq. 3) with a cosine, as in DistilBERT (arXiv 1910.01108, section 3), and without a projector. Where the budget's
    residual stream is narrower it is compared with the leading columns of the full one, so that it stays a prefix of
    it. Layer `t` of a budget is compared with layer `t` of the full model, whose first layers it has.

    Args:
        states (`Sequence[torch.Tensor]` of shapes `(batch, length, width)`): The budget's, one a tap layer.
        targets (`Sequence[torch.Tensor]` of shapes `(batch, length, full_width)`): The full model's, without gradient.
        mask (`torch.BoolTensor` of shape `(batch, length)`, *optional*): The tokens that count; all by default.

    Returns:
        `torch.Tensor`: A scalar in `[0, 2]`.
    """
    distances = torch.stack(
        [
            1 - F.cosine_similarity(state.float(), target[..., : state.shape[-1]].detach().float(), dim=-1)
            for state, target in zip(states, targets, strict=True)
        ]
    ).mean(dim=0)
    if mask is None:
        return distances.mean()
    return (distances * mask).sum() / mask.sum().clamp(min=1)
