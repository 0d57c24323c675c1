"""InfoNCE over a shared list of candidates, with several positives and without false negatives."""

import torch


def contrastive_loss(
    similarities: torch.Tensor,
    positives: torch.Tensor,
    mask: torch.Tensor | None = None,
    temperature: float = 0.05,
) -> torch.Tensor:
    """InfoNCE (van den Oord et al., arXiv 1807.03748), averaged over the positive pairs.

    Each positive competes with the negatives of its anchor, not with the anchor's other positives.

    Args:
        similarities (`torch.Tensor` of shape `(anchors, candidates)`): Cosines of adapted prefixes.
        positives (`torch.BoolTensor` of shape `(anchors, candidates)`): The positive pairs.
        mask (`torch.BoolTensor` of shape `(anchors, candidates)`, *optional*): The pairs that count; false for the
            anchor itself and for probable false negatives.
        temperature (`float`, *optional*, defaults to 0.05): Divides the similarities.

    Returns:
        `torch.Tensor`: A scalar, 0 if there is no positive pair.
    """
    logits = similarities / temperature
    negatives = ~positives if mask is None else mask & ~positives
    negative_mass = torch.logsumexp(logits.masked_fill(~negatives, -1e4), dim=-1, keepdim=True)
    losses = torch.logaddexp(logits, negative_mass) - logits
    return torch.where(positives, losses, 0).sum() / positives.sum().clamp(min=1)
