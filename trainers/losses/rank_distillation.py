"""Rank-preserving distillation: the neighbour distribution at full width teaches every prefix."""

import torch
from torch.nn import functional as F


def rank_distillation_loss(
    similarities: torch.Tensor,
    targets: torch.Tensor,
    mask: torch.Tensor | None = None,
    temperature: float = 0.05,
) -> torch.Tensor:
    """Mean Kullback-Leibler divergence from the softmax of the full-width similarities to that of the prefix ones.

    The distribution over a list of candidates is the listwise form of a ranking (ListNet, Cao et al. 2007); here its
    teacher is the same embedding at full width, so it needs no labels.

    Args:
        similarities (`torch.Tensor` of shape `(anchors, candidates)`): Cosines of adapted prefixes.
        targets (`torch.Tensor` of shape `(anchors, candidates)`): Cosines of the original full-width embeddings.
        mask (`torch.BoolTensor` of shape `(anchors, candidates)`, *optional*): The pairs that count; every row must
            have at least one.
        temperature (`float`, *optional*, defaults to 0.05): Divides both similarities.

    Returns:
        `torch.Tensor`: A scalar, 0 where the two distributions are equal.
    """
    if mask is not None:
        # Equal large negative values on both sides: a masked candidate has probability 0 and adds exactly 0.
        similarities = similarities.masked_fill(~mask, -1e4)
        targets = targets.masked_fill(~mask, -1e4)
    student = torch.log_softmax(similarities / temperature, dim=-1)
    teacher = torch.log_softmax(targets / temperature, dim=-1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)
