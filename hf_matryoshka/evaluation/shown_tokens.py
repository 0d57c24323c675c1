"""Which token embeddings a picture shows, at which prefix lengths."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


# More tokens than this cannot be told apart in a picture.
MAX_TOKENS = 128
# A space would be a label that nobody sees.
SPACE = "␣"


@dataclass
class ShownTokens:
    """What a picture is of.

    Args:
        names (`list[str]`): Tokens as they are printed, with escapes and visible spaces.
        rows (`torch.Tensor` of shape `(tokens, hidden)`): Their embeddings.
        widths (`list[int]`): Prefix lengths.
    """

    names: list[str]
    rows: torch.Tensor
    widths: list[int]


def shown_tokens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    widths: Sequence[int] | None = None,
    tokens: Sequence[str] | None = None,
) -> ShownTokens:
    """The tokens and prefix lengths that were asked for, or by default the first 128 of the vocabulary that are no
    special ones, and the widths of the levels.

    Raises:
        ValueError: If a token is not in the vocabulary.
    """
    vocabulary, table = tokenizer.get_vocab(), model.get_input_embeddings().weight.detach().cpu()
    if tokens is None:
        special = set(tokenizer.all_special_tokens)
        tokens = [name for name in sorted(vocabulary, key=vocabulary.__getitem__) if name not in special][:MAX_TOKENS]
    for token in tokens:
        if token not in vocabulary:
            raise ValueError(f"token {token!r} is not in the vocabulary of {len(vocabulary)} tokens")
    if widths is None:
        widths = sorted(set(getattr(model.config, "doll_sizes", [table.shape[1]])))
    rows = table[[vocabulary[token] for token in tokens]]
    return ShownTokens([repr(token)[1:-1].replace(" ", SPACE) for token in tokens], rows, list(widths))
