"""Which scan runs: the CUDA kernel of `mamba_ssm` where there is one, otherwise plain torch."""

import importlib
import importlib.util
from functools import cache

import torch

from .ssd_scan import ssd_scan


@cache
def _kernel():
    """The kernel, or `None` where the package is not installed."""
    if importlib.util.find_spec("mamba_ssm") is None:
        return None
    # Not an import statement: transformers takes each of those in the code of a repo for a requirement.
    return importlib.import_module("mamba_ssm.ops.triton.ssd_combined").mamba_chunk_scan_combined


def scan(
    x: torch.Tensor,
    dt: torch.Tensor,
    decay: torch.Tensor,
    inputs: torch.Tensor,
    outputs: torch.Tensor,
    chunk_size: int,
    segments: torch.Tensor | None = None,
    state: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """[`~modeling.ssd_scan.ssd_scan`], on a GPU by the kernel of `mamba_ssm` if that is installed."""
    kernel = _kernel() if x.is_cuda and not torch.compiler.is_exporting() else None
    if kernel is None or (segments is not None and state is not None):
        return ssd_scan(x, dt, decay, inputs, outputs, chunk_size, segments, state)
    y, state = kernel(
        x,
        dt.to(x.dtype),
        decay,
        inputs[:, :, None],
        outputs[:, :, None],
        chunk_size,
        seq_idx=None if segments is None else segments.to(torch.int32),
        initial_states=state,
        return_final_states=True,
    )
    return y.float(), state.float()


__all__ = ["scan"]
