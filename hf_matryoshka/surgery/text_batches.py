"""A few texts as batches of an encoder, to measure on."""

from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


def text_batches(
    model: PreTrainedModel,
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    num_texts: int,
    batch_size: int,
    max_length: int,
) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of `num_texts` texts, taken at even steps from all of `texts`, those of about one length together.

    All is checked before this returns.

    Args:
        model (`PreTrainedModel`): Whose inputs they are.
        texts (`Sequence[str]`): The texts.
        tokenizer (`PreTrainedTokenizerBase`): The tokenizer of the model.
        num_texts, batch_size (`int`): Texts in all, and of a batch, at most.
        max_length (`int`): Tokens of a text, at most; the rest is cut off. Never more than the positions of the model.

    Yields:
        `dict`: `input_ids` and `attention_mask` of shape `(texts, length)`.

    Raises:
        ValueError: If there are no texts, a number is below 1, or the tokenizer has more tokens than the model.
    """
    if isinstance(texts, str) or len(texts) == 0:
        raise ValueError(f"texts is {'one string' if texts else 'empty'}; give a list of texts, 64 or more of them")
    for name, value in (("num_texts", num_texts), ("batch_size", batch_size), ("max_length", max_length)):
        if value < 1:
            raise ValueError(f"{name} is {value}; give a number of at least 1")
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, but the model has embeddings for {rows}; give the tokenizer "
            "that belongs to the model"
        )
    count = min(num_texts, len(texts))
    chosen = [texts[index * len(texts) // count] for index in range(count)]
    for text in chosen:
        if not isinstance(text, str):
            raise ValueError(f"texts holds a {type(text).__name__}; give strings")
    chosen.sort(key=len)  # little padding
    return (
        tokenizer(
            chosen[start : start + batch_size],
            padding=True,
            truncation=True,
            max_length=min(max_length, model.config.max_position_embeddings),
            return_token_type_ids=False,
            return_tensors="pt",
        )
        for start in range(0, count, batch_size)
    )
