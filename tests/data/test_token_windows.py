"""Streams of tokens as windows, characters as tokens, rows as batches."""

import gzip

import numpy as np
import pytest
import torch

from hf_matryoshka.data.causal_collator import CausalCollator
from hf_matryoshka.data.character_tokenizer import character_tokenizer
from hf_matryoshka.data.token_windows import ConsecutiveWindows, RandomWindows, read_documents


def test_random_windows_begin_anywhere_and_depend_on_the_seed_and_their_number():
    tokens = np.arange(40)
    windows = RandomWindows(tokens, 8, 500, seed=3)
    assert len(windows) == 500
    starts = [int(windows[number]["input_ids"][0]) for number in range(500)]
    assert set(starts) == set(range(32))  # the last one ends with the stream
    assert all(np.array_equal(windows[n]["input_ids"], tokens[s : s + 9]) for n, s in enumerate(starts[:50]))
    assert starts == [int(RandomWindows(tokens, 8, 700, seed=3)[number]["input_ids"][0]) for number in range(500)]
    assert starts != [int(RandomWindows(tokens, 8, 500, seed=4)[number]["input_ids"][0]) for number in range(500)]
    with pytest.raises(IndexError, match="there are 500 windows"):
        windows[500]
    with pytest.raises(ValueError, match="a part of the text has 8 tokens, too few for a window of 8"):
        RandomWindows(np.arange(8), 8, 5, seed=0)


@pytest.mark.parametrize("length", [9, 17, 18, 19, 25])
def test_consecutive_windows_predict_each_token_once(length):
    windows = ConsecutiveWindows(np.arange(length), 8)
    predicted = [token for number in range(len(windows)) for token in windows[number]["input_ids"][1:]]
    assert predicted == list(range(1, length))
    with pytest.raises(IndexError):
        windows[len(windows)]


def test_a_text_file_is_one_document(tmp_path):
    text = "a b\n\nc\r\n d\n"
    (tmp_path / "a.txt").write_bytes(text.encode())
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "b.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    assert read_documents(tmp_path / "a.txt") == read_documents(tmp_path / "a.txt.gz") == [text]
    assert read_documents(tmp_path / "b.jsonl") == ["one", "two"]
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    for name, match in (("empty.txt", "holds no text"), ("bad.txt", "cannot be read as text in UTF-8")):
        with pytest.raises(ValueError, match=match):
            read_documents(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_documents(tmp_path / "none.txt")


def test_characters_are_tokens(tmp_path):
    tokenizer = character_tokenizer(["ab\n", " é\tb"])
    tokenizer.save_pretrained(tmp_path)
    tokenizer = type(tokenizer).from_pretrained(tmp_path)
    assert len(tokenizer) == 8
    text = "b \té\na"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text and ids == [4, 2, 0, 5, 1, 3]
    assert tokenizer("z")["input_ids"] == [tokenizer.unk_token_id] == [6]
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == 7
    with pytest.raises(ValueError, match="hold no character"):
        character_tokenizer(["", ""])


def test_rows_become_batches():
    batch = CausalCollator(9)([{"input_ids": np.array([1, 2, 3])}, {"input_ids": [4, 5]}])
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 5, 9]] and set(batch) == {"input_ids", "labels"}
    assert batch["labels"].tolist() == [[1, 2, 3], [4, 5, -100]]
    packed = [{"input_ids": [1, 2, 3, 4], "seq_lengths": [3, 1]}, {"input_ids": [5, 6], "seq_lengths": [2]}]
    batch = CausalCollator()(packed)
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0], [0, 1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 2, 3, -100], [-100, 6, -100, -100]]
    assert batch["input_ids"].dtype == torch.int64
