"""Rank-preserving distillation: the neighbour distribution at full width teaches every prefix."""

import torch
from torch.nn import functional as F


# Where a candidate does not count: large enough that its probability is exactly 0, small enough for half precision.
MASKED = -1e4


def neighbour_distribution(
    similarities: torch.Tensor,
    mask: torch.Tensor | None = None,
    temperature: float = 0.05,
    relevance: torch.Tensor | None = None,
    label_weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """What the prefixes learn: the softmax of the full-width similarities, with labels mixed in where there are any.

    The distribution over a list of candidates is the listwise form of a ranking (ListNet, Cao et al. 2007); its
    teacher is the same embedding at full width, so it needs no labels. Where an anchor has relevant candidates, a part
    of the mass goes to them: with `label_weight` 1 the loss is ListNet's on the grades, that is InfoNCE.

    Args:
        similarities (`torch.Tensor` of shape `(anchors, candidates)`): Cosines of the original full-width embeddings.
        mask (`torch.BoolTensor` of shape `(anchors, candidates)`, *optional*): The pairs that count; every row must
            have at least one.
        temperature (`float`, *optional*, defaults to 0.05): Divides the similarities.
        relevance (`torch.Tensor` of shape `(anchors, candidates)`, *optional*): Relevance grades.
        label_weight (`torch.Tensor` of shape `(anchors,)`, *optional*): Part of the mass that goes to the relevant
            candidates, in proportion to their grades; ignored where there are none.

    Returns:
        `torch.Tensor` of shape `(anchors, candidates)`: Rows that sum to 1.
    """
    if mask is not None:
        similarities = similarities.masked_fill(~mask, MASKED)
    distribution = torch.softmax(similarities / temperature, dim=-1)
    if relevance is None:
        return distribution
    mass = relevance.sum(-1, keepdim=True)
    share = torch.where(mass > 0, label_weight[:, None], 0)
    return (1 - share) * distribution + share * relevance / mass.clamp(min=1e-12)


def rank_distillation_loss(
    similarities: torch.Tensor,
    distribution: torch.Tensor,
    mask: torch.Tensor | None = None,
    temperature: float = 0.05,
) -> torch.Tensor:
    """Mean Kullback-Leibler divergence from a [`neighbour_distribution`] to the softmax of the prefix similarities.

    Args:
        similarities (`torch.Tensor` of shape `(anchors, candidates)`): Cosines of adapted prefixes.
        distribution (`torch.Tensor` of shape `(anchors, candidates)`): The target.
        mask (`torch.BoolTensor` of shape `(anchors, candidates)`, *optional*): The pairs that count.
        temperature (`float`, *optional*, defaults to 0.05): Divides the similarities.

    Returns:
        `torch.Tensor`: A scalar, 0 where the two distributions are equal.
    """
    if mask is not None:
        similarities = similarities.masked_fill(~mask, MASKED)
    return F.kl_div(torch.log_softmax(similarities / temperature, dim=-1), distribution, reduction="batchmean")
