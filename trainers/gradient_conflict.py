"""Whether the losses of the output dimensions pull a model the same way."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F


def gradient_cosines(losses: Sequence[torch.Tensor], states: torch.Tensor) -> torch.Tensor:
    """Cosines between the gradients of several losses with respect to the tokens that all are computed from.

    Below 0, a step along one gradient undoes a part of the other (the gradient conflict of PCGrad, arXiv 2001.06782,
    Definition 1). There it is measured on the parameters, one backward pass a loss. Here it is on the last hidden
    state, which is all that reaches the blocks of a loss: this costs one backward pass a loss through the head only,
    and none through the blocks.

    Args:
        losses (`Sequence[torch.Tensor]`): Scalars with their graph, which is kept.
        states (`torch.Tensor` of shape `(batch, length, hidden)`): The last hidden states, in that graph.

    Returns:
        `torch.Tensor` of shape `(losses, losses)`: The cosines; 0 for a loss without a gradient.
    """
    gradients = [torch.autograd.grad(loss, states, retain_graph=True)[0].float().flatten() for loss in losses]
    directions = F.normalize(torch.stack(gradients), dim=-1, eps=torch.finfo(torch.float32).tiny)
    return directions @ directions.T
