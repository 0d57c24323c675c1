"""The scan of Mamba-2 (state-space duality, arXiv 2405.21060) in plain torch."""

import torch
from torch.nn import functional as F


def ssd_scan(
    x: torch.Tensor,
    dt: torch.Tensor,
    decay: torch.Tensor,
    inputs: torch.Tensor,
    outputs: torch.Tensor,
    chunk_size: int,
    segments: torch.Tensor | None = None,
    state: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`s_t = exp(dt_t A) s_{t-1} + dt_t B_t x_t`, `y_t = C_t s_t`, for each channel, a chunk of tokens at once.

    Within a chunk this is masked attention with the scores `C_t B_s`, which all heads share, times the decay of each
    head; between chunks the states are carried one after the other, so that time is linear in the length. A token with
    `dt = 0` neither changes the state nor lets it decay. All in float32. In an export, where the number of chunks is
    not known, the states are carried by one product with the decays between all chunks.

    Args:
        x (`torch.Tensor` of shape `(batch, length, heads, head_dim)`): The channels.
        dt (`torch.Tensor` of shape `(batch, length, heads)`): Step sizes, 0 or more.
        decay (`torch.Tensor` of shape `(heads,)`): `A`, below 0.
        inputs (`torch.Tensor` of shape `(batch, length, state)`): `B`.
        outputs (`torch.Tensor` of shape `(batch, length, state)`): `C`.
        chunk_size (`int`): Tokens of a chunk.
        segments (`torch.Tensor` of shape `(batch, length)`, *optional*): A number that is the same for neighbouring
            tokens of one text; texts do not see each other. Padding has the number of the token before it.
        state (`torch.Tensor` of shape `(batch, heads, head_dim, state)`, *optional*): The state before the first
            token, that of the first segment; 0 by default.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: `y` of the shape of `x`, and the state after the last token, both float32.
    """
    batch, length, heads, head_dim = x.shape
    state_size = inputs.shape[-1]
    exporting = torch.compiler.is_exporting()
    chunk = chunk_size if exporting else min(chunk_size, length)
    x, dt = x.float(), dt.float()
    log_decay, x = dt * decay.float(), x * dt[..., None]
    missing = (chunk - length % chunk) % chunk
    x, log_decay = (_chunks(part, chunk, missing) for part in (x, log_decay))
    inputs, outputs = (_chunks(part.float(), chunk, missing) for part in (inputs, outputs))
    total = log_decay.transpose(2, 3).cumsum(-1)  # (batch, chunks, heads, chunk)

    scores = (outputs @ inputs.transpose(-1, -2)).tril()
    if segments is not None:
        # The last number goes on in the padding.
        segments = torch.cat((segments, segments[:, -1:].expand(-1, missing)), dim=1).unflatten(1, (-1, chunk))
        scores = scores * (segments[..., :, None] == segments[..., None, :])
    # Of tokens to come the scores are 0; without the bound their growth could be infinite, and the product no number.
    kept = (total[..., :, None] - total[..., None, :]).clamp_max_(0).exp_()
    y = ((kept * scores[:, :, None]) @ x.transpose(2, 3)).transpose(2, 3)

    # What each chunk adds to the state at its end, and what is left of the state at its start.
    to_end = (total[..., -1:] - total).exp()
    log_kept = total[..., -1]
    if segments is not None:
        last = segments[..., -1:]
        to_end = to_end * (segments == last)[:, :, None]
        before = torch.cat((segments[:, :1, :1], last[:, :-1]), dim=1)
        log_kept = log_kept.masked_fill(last != before, -torch.inf)
    added = (x * to_end.transpose(2, 3)[..., None]).flatten(-2)
    added = (inputs.transpose(-1, -2) @ added).unflatten(-1, (heads, head_dim))  # (batch, chunks, state, heads, dim)
    if state is None:
        state = x.new_zeros(batch, state_size, heads, head_dim)
    else:
        state = state.float().permute(0, 3, 1, 2)
    carry = _carry_traced if exporting else _carry
    starts, state = carry(state, added, log_kept)
    carried = (outputs @ starts.flatten(-2)).unflatten(-1, (heads, head_dim))
    from_start = total.exp()
    if segments is not None:
        from_start = from_start * (segments == before)[:, :, None]
    y = torch.addcmul(y, carried, from_start.transpose(2, 3)[..., None])
    return y.flatten(1, 2)[:, :length], state.permute(0, 2, 3, 1)


def _chunks(tensor: torch.Tensor, chunk: int, missing: int) -> torch.Tensor:
    """`(batch, length, …)` as `(batch, chunks, chunk, …)`, with zeros after the end."""
    # Padding with nothing copies all; in an export it must be there whatever the length.
    if torch.compiler.is_exporting() or missing:
        tensor = F.pad(tensor, (0, 0) * (tensor.ndim - 2) + (0, missing))
    return tensor.unflatten(1, (-1, chunk))


def _carry(state: torch.Tensor, added: torch.Tensor, log_kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The state at the start of each chunk, and the one after the last."""
    starts, kept = [], log_kept.exp()
    for number in range(added.shape[1]):
        starts.append(state)
        state = torch.addcmul(added[:, number], state, kept[:, number, None, :, None])
    return torch.stack(starts, dim=1), state


def _carry_traced(
    state: torch.Tensor, added: torch.Tensor, log_kept: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """As [`_carry`], without a loop over the chunks: `s_c` is the sum over `z <= c` of what chunk `z` added, times
    what is kept of it by all chunks after it."""
    logs = F.pad(log_kept, (0, 0, 1, 0)).transpose(1, 2)
    count, state_size = logs.shape[2], state.shape[1]
    ones = torch.ones(count, count, dtype=torch.bool, device=logs.device)
    # Sums from z + 1 to c, not differences of sums: those of many chunks would lose digits.
    sums = logs[..., None].expand(-1, -1, -1, count).masked_fill(~ones.tril(-1), 0).cumsum(2)
    decays = sums.masked_fill(~ones.tril(), -torch.inf).exp()
    joined = torch.cat((state[:, None], added), dim=1).permute(0, 3, 1, 2, 4).flatten(3)
    # Two plain products: ONNX Runtime is slow with an einsum, and leaves out the last state where nobody needs it.
    starts = (decays[:, :, :-1, :-1] @ joined[:, :, :-1]).unflatten(-1, (state_size, -1))
    last = (decays[:, :, -1:] @ joined)[:, :, 0].unflatten(-1, (state_size, -1))
    return starts.permute(0, 2, 3, 1, 4), last.transpose(1, 2)


__all__ = ["ssd_scan"]
