"""What goes into a model, checked before anything is computed."""

from typing import Any

import torch


def check_tokens(input_ids: torch.Tensor) -> None:
    """Raise `ValueError` unless token ids are whole numbers of the shape `(batch, length)`, with a token a row."""
    if input_ids.ndim != 2 or not input_ids.shape[0] or not input_ids.shape[1]:
        raise ValueError(
            "input_ids must have the shape (batch, length) with at least one token a row, but have "
            f"{tuple(input_ids.shape)}; an empty text has the special tokens of the tokenizer"
        )
    if input_ids.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"input_ids must be of type torch.int64 or torch.int32, but are {input_ids.dtype}")


def check_mask(attention_mask: Any, batch: int, length: int, patterns: bool = True) -> None:
    """Raise `ValueError` unless a mask has an entry for each token.

    With `patterns` it may also say who attends to whom, which attention takes as it is: in four dimensions, or in a
    dictionary by kind of layer.
    """
    if attention_mask is None or (patterns and (isinstance(attention_mask, dict) or attention_mask.ndim == 4)):
        return
    if tuple(attention_mask.shape) != (batch, length):
        raise ValueError(
            f"attention_mask must have the shape of the tokens, {(batch, length)}, but has "
            f"{tuple(attention_mask.shape)}"
        )


def as_embeddings(embeddings: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Embeddings in the type of the weights, whatever floating-point type they come in.

    Raises:
        ValueError: If they are of another type.
    """
    if not embeddings.is_floating_point():
        raise ValueError(f"the embeddings must be floating-point numbers, but are {embeddings.dtype}")
    return embeddings.to(dtype)
