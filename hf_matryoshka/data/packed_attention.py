"""Attention document by document for packed rows, where flash attention cannot run: `"packed_sdpa"`.

A dense block-diagonal mask costs the square of the row, most of it masked; this costs the squares of the documents.
Importing this file makes the name known to transformers: `model.set_attn_implementation("packed_sdpa")`.
"""

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask


PACKED_SDPA = "packed_sdpa"


def packed_sdpa_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """Attention inside each sequence of one row without padding, in batches of sequences of similar length.

    Without `cu_seq_lens_q` it is `"sdpa"`, so that the same model takes padded batches too.

    Args:
        module (`torch.nn.Module`):
            The attention layer.
        query, key, value (`torch.Tensor` of shape `(1, heads, num_tokens, head_dim)`):
            The states.
        attention_mask (`torch.Tensor`, *optional*):
            Not looked at when there are bounds: they say what a token may see.
        dropout (`float`, *optional*, defaults to 0.0):
            Dropout of the attention weights.
        scaling (`float`, *optional*):
            Factor of the scores; `head_dim ** -0.5` by default.
        sliding_window (`int`, *optional*):
            Tokens that are this far away or further are not seen, as in flash attention of transformers.
        cu_seq_lens_q (`torch.Tensor` of shape `(num_sequences + 1,)`, *optional*):
            Bounds of the sequences ([`~data.packing_masks.flash_attention_inputs`]).

    Returns:
        `tuple[torch.Tensor, None]`: the output of shape `(1, num_tokens, heads, head_dim)`, and no weights.
    """
    if cu_seq_lens_q is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling)
    starts, lengths = cu_seq_lens_q[:-1].long(), cu_seq_lens_q.diff().long()
    # Sequences of one power of two together: less than half of a batch is padding, and only in the attention.
    sizes = torch.ceil(torch.log2(lengths.clamp(min=8)))
    outputs, places = [], []
    for size in sizes.unique().tolist():
        start, length = starts[sizes == size, None], lengths[sizes == size, None]
        offset = torch.arange(int(length.max()), device=query.device)
        used = offset < length
        place = (start + offset).clamp(max=query.shape[2] - 1)
        allowed = used[:, None, None, :]
        if sliding_window is not None:
            allowed = allowed & ((offset[:, None] - offset).abs() < sliding_window)
            # Rows of padding see everything: some kernels give NaN where there is nothing to see.
            allowed = allowed | ~used[:, None, :, None]
        own, keys, values = (tensor[0][:, place].transpose(0, 1) for tensor in (query, key, value))
        output = scaled_dot_product_attention(own, keys, values, attn_mask=allowed, dropout_p=dropout, scale=scaling)
        outputs.append(output.transpose(1, 2)[used])
        places.append(place[used])
    return torch.cat(outputs)[torch.cat(places).argsort()][None], None


AttentionInterface.register(PACKED_SDPA, packed_sdpa_attention)
AttentionMaskInterface.register(PACKED_SDPA, sdpa_mask)
