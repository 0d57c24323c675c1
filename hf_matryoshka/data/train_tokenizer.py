"""A tokenizer of one's own, for a model from scratch."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
CAUSAL_SPECIAL_TOKENS = {"eos_token": "<|endoftext|>", "pad_token": "<|pad|>"}

# The special tokens and the 256 bytes must have a place.
SMALLEST_VOCABULARY = len(SPECIAL_TOKENS) + len(pre_tokenizers.ByteLevel.alphabet())


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, *, causal: bool = False, progress: bool = True
) -> "PreTrainedTokenizerFast":
    """Learns byte-level BPE from texts, as ModernBERT has it: it keeps case and knows every text. The same texts give
    the same tokenizer (the WordPiece trainer of `tokenizers` numbers its tokens differently in each run).

    Args:
        texts (`Iterable[str]`):
            The texts; they are read once.
        vocab_size (`int`):
            Tokens of the vocabulary, at most: few texts give fewer.
        causal (`bool`, *optional*, defaults to `False`):
            Whether it is for a decoder: nothing is added to a text; there are a token that ends one and padding.
        progress (`bool`, *optional*, defaults to `True`):
            Whether to show progress.

    Returns:
        `PreTrainedTokenizerFast`: Of an encoder every text becomes `[CLS] … [SEP]`; there are padding, unknown and
        mask tokens, too.

    Raises:
        ValueError: if the vocabulary has no room for what must be in it.
    """
    from transformers import PreTrainedTokenizerFast

    check_vocab_size(vocab_size)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = CAUSAL_SPECIAL_TOKENS if causal else SPECIAL_TOKENS
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=progress,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if causal:
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    end, start, vocabulary = SPECIAL_TOKENS["sep_token"], SPECIAL_TOKENS["cls_token"], tokenizer.get_vocab()
    tokenizer.post_processor = processors.BertProcessing((end, vocabulary[end]), (start, vocabulary[start]))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def check_vocab_size(vocab_size: int) -> None:
    """Raise `ValueError` if a vocabulary has no room for what must be in it."""
    if vocab_size < SMALLEST_VOCABULARY:
        raise ValueError(
            f"vocab_size must be at least {SMALLEST_VOCABULARY} (special tokens and all bytes), but is {vocab_size}"
        )
