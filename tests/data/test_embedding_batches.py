import numpy as np
import pytest
import torch

from hf_matryoshka.data.embedding_batches import EmbeddingCollator, EmbeddingDataset, PairDataset, batches_by_length


def words(texts, truncation, max_length):
    """A tokenizer of letters."""
    return {"input_ids": [[ord(letter) for letter in text][:max_length] for text in texts]}


def test_texts_and_vectors_become_padded_batches():
    vectors = np.arange(6, dtype=np.float16).reshape(3, 2)
    data = EmbeddingDataset(["ab", "abcdef", "c"], vectors, words, max_length=4, progress=False)
    assert len(data) == 3
    batch = EmbeddingCollator(7)([data[1], data[2]])
    assert batch["input_ids"].tolist() == [[97, 98, 99, 100], [99, 7, 7, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    assert batch["embedding"].dtype == torch.float32 and batch["embedding"].tolist() == [[2, 3], [4, 5]]


def test_another_number_of_vectors_is_refused():
    with pytest.raises(ValueError, match="there are 2 texts, but 3 embeddings"):
        EmbeddingDataset(["a", "b"], np.zeros((3, 2)), words, 4, progress=False)


def test_pairs_follow_the_texts_and_name_their_rows():
    texts = EmbeddingDataset(["a", "bc", "def", "g"], np.arange(8).reshape(4, 2), words, 4, progress=False)
    data = PairDataset(texts, range(1, 3), [(0, 2), (3, 1)])
    assert len(data) == 4
    batch = EmbeddingCollator(7)([data[2], data[0], data[3]])
    assert batch["input_ids"].tolist() == [[97, 7], [98, 99], [103, 7]]
    assert batch["pair_input_ids"].tolist() == [[100, 101, 102], [98, 99, 7]]
    assert batch["pair_attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["pair_rows"].tolist() == [0, 2]
    assert batch["embedding"].tolist() == [[0, 1], [2, 3], [6, 7]]
    assert batch["pair_embedding"].tolist() == [[4, 5], [2, 3]]
    assert "pair_rows" not in EmbeddingCollator(7)([data[0], data[1]])


def test_batches_by_length_have_every_text_once_and_hardly_any_padding():
    vectors = np.arange(12, dtype=np.float32).reshape(6, 2)
    data = EmbeddingDataset(["abc", "d", "ef", "ghij", "kl", "m"], vectors, words, max_length=8, progress=False)
    found = list(batches_by_length(data, range(1, 6), EmbeddingCollator(0), 2))
    assert [batch["attention_mask"].sum(1).tolist() for batch in found] == [[1, 1], [2, 2], [4]]
    assert torch.cat([batch["embedding"] for batch in found])[:, 0].tolist() == [2, 10, 4, 8, 6]
