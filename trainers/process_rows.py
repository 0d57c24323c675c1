"""The rows of a batch that is divided among processes, for losses that compare rows with each other."""

import torch
from accelerate import Accelerator
from torch.nn import functional as F


def gather_rows(rows: torch.Tensor, accelerator: Accelerator) -> torch.Tensor:
    """The rows of all processes, those of the first process first.

    A loss of them has the value that one process with the whole batch would have. Its gradient reaches the rows of
    this process only, times the number of processes: the mean over processes, which `DistributedDataParallel` takes of
    all gradients, then is that of the whole batch.

    Args:
        rows (`torch.Tensor` of shape `(n, ...)`): The rows of this process; `n` may be another one in each.
        accelerator (`Accelerator`): Knows the processes. All of them must call this.

    Returns:
        `torch.Tensor` of shape `(sum of all n, ...)`; `rows` itself where there is one process.
    """
    count = accelerator.num_processes
    if count == 1:
        return rows
    sizes = accelerator.gather(torch.tensor([len(rows)], device=rows.device)).tolist()
    padding = [0, 0] * (rows.ndim - 1) + [0, max(sizes) - len(rows)]
    padded = accelerator.gather(F.pad(rows.detach(), padding).contiguous())
    parts = [part[:size] for part, size in zip(padded.split(max(sizes)), sizes, strict=True)]
    parts[accelerator.process_index] = rows + (count - 1) * (rows - rows.detach()) if rows.requires_grad else rows
    return torch.cat(parts)
