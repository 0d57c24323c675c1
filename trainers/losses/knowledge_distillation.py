"""Distillation of predictions."""

import torch
from torch.nn import functional as F


def knowledge_distillation_loss(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """`T^2 KL(teacher || student)` of the softened predictions (Hinton et al. 2015, arXiv 1503.02531, section 2.1).

    The factor keeps the size of the gradient as the temperature grows. With the full budget of the same step as the
    teacher it is in-place distillation (arXiv 1903.05134, section 3.3). At temperature 1 it is the soft cross-entropy
    less the entropy of the teacher, which has no gradient.

    Args:
        student_logits (`torch.Tensor` of shape `(tokens, vocab_size)`): Predictions at the masked positions.
        teacher_logits (`torch.Tensor` of shape `(tokens, vocab_size)`): Those of the teacher, which get no gradient.
        temperature (`float`, *optional*, defaults to 1.0): Divides both.

    Returns:
        `torch.Tensor`: A scalar, the mean over the tokens, 0 where both predict the same.
    """
    student = F.log_softmax(student_logits.float() / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits.detach().float() / temperature, dim=-1)
    divergence = F.kl_div(student, teacher, reduction="sum", log_target=True)
    return temperature**2 * divergence / max(1, len(student))
