"""Which tokens a picture shows."""

import pytest
import torch

from hf_matryoshka.data.character_tokenizer import character_tokenizer
from hf_matryoshka.evaluation.shown_tokens import MAX_TOKENS, shown_tokens

from ..modeling.gpt_models import make


def test_tokens_have_visible_names():
    tokenizer, model = character_tokenizer(["abc \n'"]), make(vocab_size=8)
    shown = shown_tokens(model, tokenizer)
    assert shown.names == ["\\n", "␣", "'", "a", "b", "c"] and shown.widths == [16, 32, 64]
    assert torch.equal(shown.rows, model.get_input_embeddings().weight[:6])
    some = shown_tokens(model, tokenizer, [8], ["c", "a"])
    assert some.names == ["c", "a"] and some.widths == [8]
    assert torch.equal(some.rows, model.get_input_embeddings().weight[[5, 3]])
    with pytest.raises(ValueError, match="token 'z' is not in the vocabulary of 8 tokens"):
        shown_tokens(model, tokenizer, tokens=["z"])


def test_only_so_many_by_default():
    tokenizer = character_tokenizer(["".join(map(chr, range(200, 400)))])
    assert len(shown_tokens(make(vocab_size=202), tokenizer).names) == MAX_TOKENS == 128
