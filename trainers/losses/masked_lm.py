"""Masked language modelling."""

import torch
from torch.nn import functional as F


def masked_lm_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each masked token, in nats (BERT, arXiv 1810.04805, section 3.1).

    Args:
        logits (`torch.Tensor` of shape `(tokens, vocab_size)`): Predictions at the masked positions.
        labels (`torch.LongTensor` of shape `(tokens,)`): Token ids.

    Returns:
        `torch.Tensor` of shape `(tokens,)`: In float32, whatever the logits are.
    """
    return F.cross_entropy(logits.float(), labels, reduction="none")


def token_mean(losses: torch.Tensor) -> torch.Tensor:
    """Mean of the losses of tokens, 0 where there are none."""
    return losses.sum() / max(1, losses.numel())
