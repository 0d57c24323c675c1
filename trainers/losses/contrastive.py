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


def pair_relations(
    texts: torch.Tensor, first: torch.Tensor, second: torch.Tensor
) -> tuple[torch.BoolTensor, torch.BoolTensor]:
    """Which texts of a batch of pairs [`contrastive_loss`] draws together, and which ones it compares.

    All texts of the batch are anchors and candidates: those of the other pairs, on either side, and those of no pair
    are negatives (the improved contrastive loss of GTE, arXiv 2308.03281), so that few pairs have many negatives and
    both directions are trained. Equal texts are no negatives of each other, and have the same positives.

    Args:
        texts (`torch.Tensor` of shape `(texts, length)`): Tokens, padded with one value.
        first, second (`torch.Tensor` of shape `(pairs,)`): Rows of the texts of each pair.

    Returns:
        `tuple[torch.BoolTensor, torch.BoolTensor]`: The positives and the pairs that count, `(texts, texts)` each.
    """
    numbers = torch.unique(texts, dim=0, return_inverse=True)[1]
    same = numbers[:, None] == numbers
    links = torch.zeros_like(same)
    links[first, second] = links[second, first] = True
    linked = (same.float() @ links.float() @ same.float()) > 0
    return linked & ~same, ~same
