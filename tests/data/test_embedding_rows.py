import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hf_matryoshka.data.embedding_rows import chunks, collate_rows, split_rows
from hf_matryoshka.data.principal_components import principal_components
from hf_matryoshka.data.vectors import load_vectors, save_vectors


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)


def test_rows_are_split_once_each_and_read_in_batches(vectors):
    rows, held_out, test = split_rows(vectors, (0.1, 0.25), seed=3)
    assert [len(part) for part in (rows, held_out, test)] == [65, 10, 25] and rows.shape == (65, 6)
    whole = np.concatenate([rows[:], held_out[:], test[:]])
    assert sorted(map(tuple, whole)) == sorted(map(tuple, vectors))
    again = split_rows(vectors, (0.1, 0.25), seed=3)[0]
    assert np.array_equal(again[:], rows[:]) and not np.array_equal(split_rows(vectors, (0.1, 0.25), 4)[0][:], rows[:])
    batches = list(DataLoader(rows, batch_size=16, collate_fn=collate_rows))
    found = torch.cat([batch["embeddings"] for batch in batches])
    assert torch.equal(found, torch.from_numpy(rows[:])) and np.array_equal(rows[2], found[2])
    # In the order asked for, whatever the order in the file.
    assert np.array_equal(rows.__getitems__([5, 1, 9]), rows[:][[5, 1, 9]])


def test_components_of_chunks_are_those_of_all_rows(vectors):
    scaled = vectors * np.array([5, 4, 3, 2, 1, 0.5], dtype=np.float32) + 1
    mean, basis, spread = principal_components(chunks(scaled, 7))
    np.testing.assert_allclose(mean.numpy(), scaled.mean(0), rtol=1e-5)
    _, singular, rows = np.linalg.svd(scaled - scaled.mean(0))
    np.testing.assert_allclose(np.abs((basis.numpy() * rows).sum(1)), 1, atol=1e-5)
    np.testing.assert_allclose(spread.numpy(), singular / 10, rtol=1e-4)
    mean, basis, _ = principal_components(chunks(scaled, 7), centred=False)
    assert not mean.any()
    np.testing.assert_allclose(np.abs((basis.numpy() * np.linalg.svd(scaled)[2]).sum(1)), 1, atol=1e-5)


def test_a_file_is_mapped_and_bad_numbers_are_named(vectors, tmp_path):
    save_vectors(vectors, tmp_path / "v.npy")
    assert isinstance(load_vectors(tmp_path / "v.npy").base, np.memmap)
    vectors[42, 1] = np.inf
    with pytest.raises(ValueError, match="embedding 42 holds NaN or infinity"):
        list(chunks(vectors, 10))
