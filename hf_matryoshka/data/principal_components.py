"""Principal components of rows that need not fit into memory."""

from collections.abc import Iterable

import torch


def principal_components(
    rows: Iterable[torch.Tensor], centred: bool = True
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean, directions and spreads of rows that come in chunks.

    Args:
        rows (`Iterable[torch.Tensor]` of shape `(n, dim)`): The chunks.
        centred (`bool`, *optional*, defaults to `True`): Whether the mean is taken out first. Without, it is given as
            0,
            and the spreads are root mean squares.

    Returns:
        `torch.Tensor` of shapes `(dim,)`, `(dim, dim)` (orthonormal rows, the widest spread first) and `(dim,)`:
        float32, computed in float64.
    """
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for chunk in rows:
        chunk = chunk.double()
        count, total, squares = count + len(chunk), total + chunk.sum(dim=0), squares + chunk.T @ chunk
    mean = total / count if centred else torch.zeros_like(total)
    values, vectors = torch.linalg.eigh(squares / count - torch.outer(mean, mean))
    return mean.float(), vectors.flip(1).T.float().contiguous(), values.flip(0).clamp_min(0).sqrt().float()
