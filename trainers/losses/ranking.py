"""Pairwise logistic ranking (Matryoshka-Adaptor, arXiv 2407.20243, Eq. 5)."""

import torch
from torch.nn import functional as F


def ranking_loss(
    similarities: torch.Tensor,
    relevance: torch.Tensor,
    mask: torch.Tensor | None = None,
    temperature: float = 1.0,
) -> torch.Tensor:
    """Weighted mean over all (anchor, better, worse) triples of `log(1 + exp(s_worse - s_better))`, each triple
    weighing as much as the difference of its two relevance grades.

    Args:
        similarities (`torch.Tensor` of shape `(anchors, candidates)`): Cosines of adapted prefixes.
        relevance (`torch.Tensor` of shape `(anchors, candidates)`): Relevance grades, 0 for irrelevant.
        mask (`torch.BoolTensor` of shape `(anchors, candidates)`, *optional*): The pairs that count.
        temperature (`float`, *optional*, defaults to 1.0): Divides the similarities; the paper has 1.

    Returns:
        `torch.Tensor`: A scalar, 0 if no anchor prefers one candidate to another.
    """
    # Only relevant candidates can be the better one: a loop over them avoids the cube of triples.
    total, weight = similarities.new_zeros(()), similarities.new_zeros(())
    for row, better in (relevance > 0).nonzero().tolist():
        if mask is not None and not mask[row, better]:
            continue
        gain = (relevance[row, better] - relevance[row]).clamp(min=0)
        if mask is not None:
            gain = gain * mask[row]
        difference = (similarities[row] - similarities[row, better]) / temperature
        total = total + (gain * F.softplus(difference)).sum()
        weight = weight + gain.sum()
    return total / weight.clamp(min=1e-12)
