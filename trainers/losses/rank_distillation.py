"""Rank-preserving distillation: the neighbour distribution at full width teaches every prefix."""

import torch
from torch.nn import functional as F


def rank_distillation_loss(
    similarities: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor | None = None,
    temperature: float = 0.05,
    relevance: torch.Tensor | None = None,
    label_weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean Kullback-Leibler divergence from the softmax of the full-width similarities to that of the prefix ones.

    The distribution over a list of candidates is the listwise form of a ranking (ListNet, Cao et al. 2007); here its
    teacher is the same embedding at full width, so it needs no labels. Where an anchor has relevant candidates, a part
    of the target's mass goes to them: with `label_weight` 1 this is the ListNet loss on the grades, that is InfoNCE.

    Args:
        similarities (`torch.Tensor` of shape `(anchors, candidates)`): Cosines of adapted prefixes.
        targets (`torch.Tensor` of shape `(anchors, candidates)`): Cosines of the original full-width embeddings.
        mask (`torch.BoolTensor` of shape `(anchors, candidates)`, *optional*): The pairs that count; every row must
            have at least one.
        temperature (`float`, *optional*, defaults to 0.05): Divides both similarities.
        relevance (`torch.Tensor` of shape `(anchors, candidates)`, *optional*): Relevance grades.
        label_weight (`torch.Tensor` of shape `(anchors,)`, *optional*): Part of the target's mass that goes to the
            relevant candidates, in proportion to their grades; ignored where there are none.

    Returns:
        `torch.Tensor`: A scalar, 0 where the two distributions are equal.
    """
    if mask is not None:
        # Equal large negative values on both sides: a masked candidate has probability 0 and adds exactly 0.
        similarities = similarities.masked_fill(~mask, -1e4)
        targets = targets.masked_fill(~mask, -1e4)
    student = torch.log_softmax(similarities / temperature, dim=-1)
    teacher = torch.softmax(targets / temperature, dim=-1)
    if relevance is not None:
        mass = relevance.sum(-1, keepdim=True)
        share = torch.where(mass > 0, label_weight[:, None], 0)
        teacher = (1 - share) * teacher + share * relevance / mass.clamp(min=1e-12)
    return F.kl_div(student, teacher, reduction="batchmean")
