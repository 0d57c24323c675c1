"""Embedding distillation: a small encoder learns a teacher's embeddings, and how they lie to each other."""

import torch
from torch.nn import functional as F

from .rank_distillation import neighbour_distribution, rank_distillation_loss


def cosine_distillation_loss(embeddings: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """One minus the cosine of each embedding and its teacher's, averaged over the batch.

    Regression onto the teacher's vectors is what makes a student a drop-in replacement (Reimers and Gurevych 2020,
    arXiv 2004.09813, Eq. 1); with unit vectors half of their squared distance is this.

    Args:
        embeddings (`torch.Tensor` of shape `(batch, dim)`): The student's embeddings.
        targets (`torch.Tensor` of shape `(batch, dim)`): The teacher's embeddings of the same texts.

    Returns:
        `torch.Tensor`: A scalar from 0 to 2.
    """
    return 1 - F.cosine_similarity(embeddings, targets, dim=-1).mean()


def squared_distance_loss(embeddings: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Squared distance of each embedding to its teacher's, both of unit length, averaged over the batch.

    The mean squared error of Reimers and Gurevych (2020, arXiv 2004.09813, Eq. 1) times the dimension, so that its
    weight means the same at any. Of unit vectors it is twice [`cosine_distillation_loss`].

    Args:
        embeddings (`torch.Tensor` of shape `(batch, dim)`): The student's embeddings.
        targets (`torch.Tensor` of shape `(batch, dim)`): The teacher's embeddings of the same texts.

    Returns:
        `torch.Tensor`: A scalar from 0 to 4.
    """
    difference = F.normalize(embeddings, dim=-1) - F.normalize(targets, dim=-1)
    return difference.square().sum(-1).mean()


def relational_distillation_loss(
    embeddings: torch.Tensor, targets: torch.Tensor, temperature: float = 0.05
) -> torch.Tensor:
    """Divergence between what is near to what in a batch, by the teacher and by the student.

    Each text is compared with all others of the batch: the softmax of its cosines under the teacher is the target of
    the same softmax under the student (the similarity-distribution form of relational distillation, SEED, arXiv
    2101.04731, Eq. 3). It does not ask for the same width, so it also teaches prefixes of an embedding.

    Args:
        embeddings (`torch.Tensor` of shape `(batch, dim)`): The student's embeddings, or a prefix of them.
        targets (`torch.Tensor` of shape `(batch, teacher_dim)`): The teacher's embeddings of the same texts.
        temperature (`float`, *optional*, defaults to 0.05): Divides the cosines.

    Returns:
        `torch.Tensor`: A scalar, 0 where the two distributions are equal; also for a batch of one text.
    """
    if len(embeddings) < 2:
        return embeddings.sum() * 0
    others = ~torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    embeddings, targets = F.normalize(embeddings, dim=-1), F.normalize(targets, dim=-1)
    distribution = neighbour_distribution(targets @ targets.T, others, temperature)
    return rank_distillation_loss(embeddings @ embeddings.T, distribution, others, temperature)
