"""What keeps the documents of a packed row apart: segments, positions, attention masks."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from transformers.masking_utils import (
    create_bidirectional_mask,
    create_bidirectional_sliding_window_mask,
    packed_sequence_mask_function,
)

from .packed_attention import PACKED_SDPA


if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask
    from transformers import PreTrainedConfig


def segment_ids(seq_lengths: Sequence[Sequence[int]], length: int) -> torch.Tensor:
    """Which sequence of its row each token belongs to; the padded tail is a segment of its own.

    Args:
        seq_lengths (`Sequence[Sequence[int]]`):
            For each row the lengths of its sequences.
        length (`int`):
            Tokens of a row, with padding.

    Returns:
        `torch.Tensor` of shape `(len(seq_lengths), length)`: int64, counted from 0 in each row.
    """
    return torch.stack([_numbered(lengths, length)[0] for lengths in seq_lengths])


def packed_position_ids(seq_lengths: Sequence[Sequence[int]], length: int, start: int = 0) -> torch.Tensor:
    """Positions that start again in every sequence, as a model with learned positions must see them.

    Rotary positions are relative: they may restart or run on.

    Args:
        seq_lengths (`Sequence[Sequence[int]]`):
            For each row the lengths of its sequences.
        length (`int`):
            Tokens of a row, with padding.
        start (`int`, *optional*, defaults to 0):
            Position of the first token of a sequence: `pad_token_id + 1` for RoBERTa and its kin. The tail has it too.

    Returns:
        `torch.Tensor` of shape `(len(seq_lengths), length)`: int64.
    """
    positions = torch.stack([_numbered(lengths, length)[1] for lengths in seq_lengths])
    return positions + start


def _numbered(lengths: Sequence[int], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Segment and position of each token of a row; the tail has position 0, which every model has."""
    counts = torch.tensor([*lengths, length - sum(lengths)])
    segments = torch.repeat_interleave(torch.arange(len(counts)), counts)
    positions = torch.arange(length) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    return segments, positions.masked_fill(segments == len(lengths), 0)


def packed_attention_mask(
    config: "PreTrainedConfig", segments: torch.Tensor, dtype: torch.dtype = torch.float32
) -> "torch.Tensor | BlockMask | dict[str, torch.Tensor | BlockMask]":
    """Block-diagonal attention mask: a token sees the tokens of its own segment, and no other.

    Stock encoders ignore restarted positions, so packed documents would see each other; they do take a mask that is
    ready. Models that mix full and sliding attention need one for each: a single 4-D mask would be taken for both, and
    the sliding layers would lose their window.

    Args:
        config (`PreTrainedConfig`):
            Config of the model, from the model itself: it knows the attention implementation.
        segments (`torch.Tensor` of shape `(batch, length)`):
            Segment of each token ([`segment_ids`]), on the device of the model.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`):
            What the model computes in: the mask of eager attention is added to its scores.

    Returns:
        `torch.Tensor` of shape `(batch, 1, length, length)`, or a `BlockMask` for flex attention; for a config with
        sliding layers a `dict` of the two, `"full_attention"` and `"sliding_attention"`. What a stock model takes as
        `attention_mask`.

    Raises:
        ValueError: if the config has no attention implementation, or one that takes no mask (flash attention
            and packed_sdpa: [`flash_attention_inputs`]).
    """
    implementation = config._attn_implementation
    if implementation is None or takes_bounds(config):
        raise ValueError(
            f"no mask can be made for the attention implementation {implementation!r}: it must be eager, sdpa or "
            "flex_attention, in the config of a loaded model (flash attention and packed_sdpa take the bounds instead)"
        )
    settings = {
        "config": config,
        # Only its shape, dtype and device are read.
        "inputs_embeds": segments.new_empty((*segments.shape, 0), dtype=dtype),
        "attention_mask": None,
        "and_mask_function": packed_sequence_mask_function(segments),
    }
    full = create_bidirectional_mask(**settings)
    if "sliding_attention" not in (getattr(config, "layer_types", None) or ()):
        return full
    return {"full_attention": full, "sliding_attention": create_bidirectional_sliding_window_mask(**settings)}


def takes_bounds(config: "PreTrainedConfig") -> bool:
    """Whether the attention of a model takes the bounds of the sequences instead of a mask."""
    implementation = config._attn_implementation or ""
    return implementation == PACKED_SDPA or "flash" in implementation


def flash_attention_inputs(
    inputs: Mapping[str, torch.Tensor], seq_lengths: Sequence[Sequence[int]]
) -> dict[str, torch.Tensor | int]:
    """A padded batch as one row without padding, with the bounds of its sequences (flash attention, `"packed_sdpa"`).

    Unlike `transformers.DataCollatorWithFlattening`, which is for causal labels, it leaves the label of the first
    token of a sequence alone.

    Args:
        inputs (`Mapping[str, torch.Tensor]`):
            Tensors of shape `(batch, length)`, such as `input_ids`, `position_ids` and `labels`.
        seq_lengths (`Sequence[Sequence[int]]`):
            For each row the lengths of its sequences.

    Returns:
        `dict`: the tensors, of shape `(1, num_tokens)`; `cu_seq_lens_q` and `cu_seq_lens_k` (int32, `num_sequences +
        1`), `max_length_q` and `max_length_k` (`int`), as flash attention in transformers takes them.
    """
    lengths = [length for row in seq_lengths for length in row]
    length = next(iter(inputs.values())).shape[1]
    used = torch.arange(length) < torch.tensor([sum(row) for row in seq_lengths])[:, None]
    bounds = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    flat: dict[str, torch.Tensor | int] = {name: value[used.to(value.device)][None] for name, value in inputs.items()}
    return {
        **flat,
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
    }


def add_packed_mask(
    inputs: Mapping[str, Any], config: "PreTrainedConfig", dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """A batch with `segment_ids` as the arguments of a stock model: the mask is made where the batch is.

    For flex attention on an accelerator, whose `BlockMask` reads the segments again when it runs, and to spare the
    transfer of dense masks: give the collator no config and call this once the batch is on the device.

    Args:
        inputs (`Mapping[str, Any]`): A batch of [`~data.packed_collator.PackedMlmCollator`].
        config (`PreTrainedConfig`): Config of the model.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): What the model computes in.

    Returns:
        `dict[str, Any]`: the batch, with `attention_mask` in place of `segment_ids`.
    """
    rest = {name: value for name, value in inputs.items() if name != "segment_ids"}
    return rest | {"attention_mask": packed_attention_mask(config, inputs["segment_ids"], dtype)}
