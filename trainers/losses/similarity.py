"""Losses that keep similarities as they were (Matryoshka-Adaptor, arXiv 2407.20243, Eq. 1 to 3)."""

import torch


def masked_mean(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Mean of the values where the mask is true (0 where it is nowhere true); of all values without a mask."""
    if mask is None:
        return values.mean()
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)


def similarity_loss(
    similarities: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean absolute difference of similarities: the pairwise loss (Eq. 1) over all pairs, the top-k loss (Eq. 2) when
    `mask` marks each row's corpus neighbours.

    Args:
        similarities (`torch.Tensor` of shape `(anchors, candidates)`): Cosines of adapted prefixes.
        targets (`torch.Tensor` of shape `(anchors, candidates)`): Cosines of the original full-width embeddings.
        mask (`torch.BoolTensor` of shape `(anchors, candidates)`, *optional*): The pairs that count.

    Returns:
        `torch.Tensor`: A scalar.
    """
    return masked_mean((similarities - targets).abs(), mask)


def reconstruction_loss(adapted: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of the L1 distance between unit vectors before and after adaptation (Eq. 3).

    Args:
        adapted (`torch.Tensor` of shape `(batch, dim)`): Adapted full-width embeddings of unit length.
        embeddings (`torch.Tensor` of shape `(batch, dim)`): The original embeddings of unit length.

    Returns:
        `torch.Tensor`: A scalar.
    """
    return (adapted - embeddings).abs().sum(-1).mean()
