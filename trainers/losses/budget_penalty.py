"""Budget penalty: token routing must not compute more than was asked for."""

from collections.abc import Sequence

import torch


def budget_penalty_loss(
    kept: torch.Tensor, routed_flops: Sequence[float], fixed_flops: float, target: float
) -> torch.Tensor:
    """Square of the share of a budget's FLOPs by which the expected ones are above a target.

    `L = max(0, E[F(routing)] / F(b) - target)^2` with `E[F(routing)] = fixed + sum over layers l of kept_l routed_l`
    and `F(b)` the same with everything kept: the ratio loss of DynamicViT (arXiv 2106.02034), but over FLOPs, and with
    nothing asked below the target. A budget without routing has nothing to save and no penalty.

    Args:
        kept (`torch.Tensor` of shape `(..., layers)`): Share of the tokens for which each layer computes what is
            routed, with gradient; the mean is taken over all other axes.
        routed_flops (`Sequence[float]`): For each layer, the FLOPs a token of what is routed.
        fixed_flops (`float`): FLOPs a token of all else.
        target (`float`): Share of the FLOPs of the whole budget, in `(0, 1]`.

    Returns:
        `torch.Tensor`: A scalar.

    Raises:
        ValueError: If there is not one number of FLOPs a layer.
    """
    if kept.shape[-1] != len(routed_flops):
        raise ValueError(f"there are keep rates of {kept.shape[-1]} layers, but the FLOPs of {len(routed_flops)}")
    whole = fixed_flops + sum(routed_flops)
    if whole == fixed_flops:
        return kept.new_zeros(())
    shares = kept.float().reshape(-1, len(routed_flops)).mean(dim=0)
    expected = fixed_flops + (shares * shares.new_tensor(routed_flops)).sum()
    return (expected / whole - target).clamp(min=0).square()
