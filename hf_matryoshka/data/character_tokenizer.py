"""A tokenizer whose tokens are the characters of some texts."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

UNKNOWN = "<unk>"
END = "<eos>"


def character_tokenizer(texts: Iterable[str]) -> "PreTrainedTokenizerFast":
    """One token a character (a Unicode code point), in the order of the code points, then `<unk>` for others and
    `<eos>`, which ends a document and pads.

    Args:
        texts (`Iterable[str]`): The texts; they are read once.

    Raises:
        ValueError: If there is no character.
    """
    from transformers import PreTrainedTokenizerFast

    characters = sorted(set().union(*map(set, texts)))
    if not characters:
        raise ValueError("the texts hold no character to make a vocabulary of")
    vocabulary = {character: index for index, character in enumerate([*characters, UNKNOWN, END])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=UNKNOWN, eos_token=END, pad_token=END)
