"""Objectives of funnels."""

import torch
from torch.nn import functional as F


def reconstruction_distance(reconstructions: torch.Tensor, embeddings: torch.Tensor, sphere: bool) -> torch.Tensor:
    r"""How far decoded embeddings are from those that were encoded: \\( 1 - \cos(x, \hat x) \\), or on a flat space
    the mean squared difference of the coordinates.

    The best unit vector for a code c under the cosine is the direction of \\( E[x | c] \\).

    Args:
        reconstructions, embeddings (`torch.Tensor` of shape `(batch, dim)`): Decoded and encoded vectors.
        sphere (`bool`): Whether only directions count.

    Returns:
        `torch.Tensor`: A scalar, the mean over the batch.
    """
    if sphere:
        return (1 - F.cosine_similarity(reconstructions, embeddings, dim=-1)).mean()
    return F.mse_loss(reconstructions, embeddings)


def cascade_loss(latents: torch.Tensor, predictions: torch.Tensor, dims: list[int], decay: float) -> torch.Tensor:
    """Mean squared distance of each stage after the first to its prediction, weighted by powers of `decay`.

    Args:
        latents (`torch.Tensor` of shape `(batch, dims[-1])`): They get no gradient.
        predictions (`torch.Tensor` of shape `(batch, dims[-1])`): What the stages before each stage make of it.
        dims (`list[int]`): Width of the latent after each stage.
        decay (`float`): Weight of a stage, as a multiple of that of the stage before it.

    Returns:
        `torch.Tensor`: A scalar; 0 where there is one stage only.
    """
    weights = [decay**number for number in range(len(dims) - 1)]
    squares = (predictions - latents.detach()) ** 2
    terms = [squares[:, start:end].mean() for start, end in zip(dims, dims[1:], strict=False)]
    if not terms:
        return squares.new_zeros(())
    return sum(weight * term for weight, term in zip(weights, terms, strict=True)) / sum(weights)


def progressive_decay(progress: float) -> float:
    """The decay of [`cascade_loss`] at a part of the training from 0 to 1: 1 up to 30%, 0.5 from 70% on, linear
    between (the schedule of the first cascading funnel over 100 epochs)."""
    return 1 - 0.5 * min(1.0, max(0.0, (progress - 0.3) / 0.4))
