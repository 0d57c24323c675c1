"""Texts into sequences of tokens that fit a row, without dropping a token."""

import hashlib
import json
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(name_or_path: str) -> "PreTrainedTokenizerBase":
    """Loads the tokenizer of a model: a local folder, the packaged default model, or a Hub id.

    Raises:
        OSError: in one sentence, if there is none.
    """
    from transformers import AutoTokenizer

    from .base_models import resolve_base_model

    resolved = resolve_base_model(name_or_path)
    try:
        return AutoTokenizer.from_pretrained(resolved)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise OSError(
            f"cannot load a tokenizer from {name_or_path!r} ({reason}); give a folder with tokenizer.json, or a Hub id"
        ) from error


def special_affixes(tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and after a text, such as `[CLS]` and `[SEP]`."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start], whole[start + len(plain) :]
    raise ValueError(
        f"{type(tokenizer).__name__} changes a text when it adds special tokens; packing needs one that puts them "
        "only before and after it"
    )


def check_max_length(max_length: int, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Raise `ValueError` unless a row of `max_length` tokens holds the special tokens and a token of text."""
    special = sum(map(len, special_affixes(tokenizer)))
    if max_length <= special:
        raise ValueError(
            f"max_length must be at least {special + 1}, one token beside the {special} special ones, got {max_length}"
        )


def split_into_sequences(
    batch: dict[str, list[str]], tokenizer: "PreTrainedTokenizerBase", max_length: int
) -> dict[str, list]:
    """Tokenises a batch of texts; a function for `datasets.Dataset.map(batched=True)`.

    A text of more tokens than a row holds becomes several sequences. Every sequence has the special tokens around it.

    Args:
        batch (`dict[str, list[str]]`):
            Texts under `"text"`.
        tokenizer (`PreTrainedTokenizerBase`):
            The tokenizer.
        max_length (`int`):
            Most tokens of a sequence, special ones included.

    Returns:
        `dict[str, list]`: `input_ids` of each sequence, and `starts`: whether it is the first of its text.
    """
    before, after = special_affixes(tokenizer)
    room = max_length - len(before) - len(after)
    # A call without `truncation` and `padding` does neither, whatever the tokenizer file itself may ask for.
    encoded = tokenizer(
        batch["text"],
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
    parts = [(start, tokens[start : start + room]) for tokens in encoded for start in range(0, len(tokens), room)]
    return {
        "input_ids": [[*before, *tokens, *after] for _, tokens in parts],
        "starts": [start == 0 for start, _ in parts],
    }


def tokenizer_fingerprint(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Identifies how a tokenizer turns text into tokens, as 64 hexadecimal digits."""
    settings: dict[str, Any] = {"special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()}}
    if tokenizer.is_fast:
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        # State of the last call, not of the tokenizer.
        settings["backend"] = {name: value for name, value in backend.items() if name not in ("truncation", "padding")}
    else:
        settings |= {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    return _digest(settings)


def vocabulary_fingerprint(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Identifies which token has which id, as 64 hexadecimal digits."""
    return _digest(tokenizer.get_vocab())


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
