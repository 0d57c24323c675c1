"""What a packed corpus was made with, and whether a model can train on it."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .tokens import vocabulary_fingerprint


if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

INFO_FILE = "packing.json"


@dataclass(frozen=True)
class PackingInfo:
    """What is known about a packed corpus; `packing.json` beside the Arrow files.

    Args:
        max_length (`int`): Tokens of a row.
        num_rows (`int`): Rows.
        num_sequences (`int`): Sequences in them: documents, and parts of documents that were split.
        num_documents (`int`): Documents with at least one token.
        num_empty (`int`): Texts in which the tokenizer found none.
        num_tokens (`int`): Tokens in the rows, special ones included.
        tokenizer (`str`): Name or path of the tokenizer.
        tokenizer_fingerprint (`str`): Equal for tokenizers that turn every text into the same tokens.
        vocabulary_fingerprint (`str`): Equal for tokenizers in which every token has the same id.
        vocab_size (`int`): Entries of the vocabulary.
        buffer_size (`int`): Most texts that were packed together.
        fill (`bool`): Whether documents were split to fill rows.
    """

    max_length: int
    num_rows: int
    num_sequences: int
    num_documents: int
    num_empty: int
    num_tokens: int
    tokenizer: str
    tokenizer_fingerprint: str
    vocabulary_fingerprint: str
    vocab_size: int
    buffer_size: int
    fill: bool = False

    @property
    def useful_tokens(self) -> float:
        """Share of the positions of the rows that hold a token (0–1); the others are padding."""
        return self.num_tokens / (self.num_rows * self.max_length)

    def to_dict(self) -> dict[str, int | float | str]:
        return {**dataclasses.asdict(self), "useful_tokens": self.useful_tokens}

    def check_model(self, config: "PreTrainedConfig", tokenizer: "PreTrainedTokenizerBase | None" = None) -> None:
        """Checks that a model can train on the corpus.

        Args:
            config (`PreTrainedConfig`):
                The config of the model.
            tokenizer (`PreTrainedTokenizerBase`, *optional*):
                The tokenizer of its checkpoint, if it has one.

        Raises:
            ValueError: if its embeddings have no row for a token, if its tokenizer gives tokens other ids, or if it
                has fewer positions than a document may need.
        """
        check_vocabulary(self.vocab_size, config)
        if tokenizer is not None and vocabulary_fingerprint(tokenizer) != self.vocabulary_fingerprint:
            raise ValueError(
                f"the corpus was packed with the tokenizer {self.tokenizer!r} ({self.vocab_size} tokens), whose "
                f"vocabulary differs from that of the checkpoint ({len(tokenizer)} tokens); pack it again with the "
                "tokenizer of the checkpoint"
            )
        positions = getattr(config, "max_position_embeddings", None)
        if positions is not None and self.max_length > positions:
            raise ValueError(
                f"documents of the corpus have up to {self.max_length} tokens, the model has {positions} positions; "
                f"pack it with a max_length of at most {positions}"
            )


def check_vocabulary(vocab_size: int, config: "PreTrainedConfig") -> None:
    """Raise `ValueError` if a model has fewer embeddings than the vocabulary has tokens (more are common: padding)."""
    if vocab_size > config.vocab_size:
        raise ValueError(
            f"the tokenizer has {vocab_size} tokens, but the model has {config.vocab_size} embeddings; use the "
            "tokenizer of the checkpoint"
        )


def load_packing_info(folder: str | Path) -> PackingInfo:
    """Reads what [`~data.pack.pack_texts`] wrote beside the rows.

    Raises:
        FileNotFoundError: if the folder is no packed corpus.
        ValueError: if its `packing.json` is damaged.
    """
    path = Path(folder) / INFO_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is no packed corpus: it has no {INFO_FILE}; make one with hf-matryoshka pack"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return PackingInfo(**{field.name: values[field.name] for field in dataclasses.fields(PackingInfo)})
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); pack the corpus again") from error
