import pytest

from hf_matryoshka.data.packed_collator import PackedMlmCollator
from hf_matryoshka.data.tokens import special_affixes, tokenizer_fingerprint
from hf_matryoshka.data.train_tokenizer import SMALLEST_VOCABULARY, train_tokenizer


def test_a_trained_tokenizer(documents, tmp_path):
    size = SMALLEST_VOCABULARY + 60
    tokenizer = train_tokenizer(documents, size, progress=False)
    assert SMALLEST_VOCABULARY < len(tokenizer) <= size
    for text in ("The Cat é 猫\n 7", "the cat fish", " x"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert special_affixes(tokenizer) == ([tokenizer.cls_token_id], [tokenizer.sep_token_id])
    assert tokenizer.unk_token_id not in tokenizer("é 猫")["input_ids"]
    # What it learned: a frequent word is one token.
    assert len(tokenizer(" protein")["input_ids"]) == 3
    PackedMlmCollator(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    loaded = type(tokenizer).from_pretrained(tmp_path)
    assert tokenizer_fingerprint(loaded) == tokenizer_fingerprint(tokenizer)
    again = train_tokenizer(documents, size, progress=False)
    assert tokenizer_fingerprint(again) == tokenizer_fingerprint(tokenizer)


def test_a_vocabulary_without_room_is_refused():
    with pytest.raises(ValueError, match="vocab_size must be at least 261"):
        train_tokenizer(["a"], 260)
