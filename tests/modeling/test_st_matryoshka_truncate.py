"""Truncation of Matryoshka embeddings as a sentence-transformers module."""

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from hf_matryoshka.modeling.st_matryoshka_truncate import MatryoshkaTruncate


TEXTS = ["a cat", "the large river in the city", "protein"]


@pytest.fixture(scope="module")
def base(tiny_sentence_transformer):
    return SentenceTransformer(tiny_sentence_transformer, device="cpu", local_files_only=True)


def test_truncates_then_brings_back_to_unit_length(base):
    model = SentenceTransformer(modules=[*base.children(), MatryoshkaTruncate([4, 8, 32], 8)], device="cpu")
    full = base.encode(TEXTS)
    for dim, embeddings in ((8, model.encode(TEXTS)), (4, model.encode(TEXTS, matryoshka_dim=4))):
        expected = full[:, :dim] / np.linalg.norm(full[:, :dim], axis=1, keepdims=True)
        np.testing.assert_allclose(embeddings, expected, atol=1e-6)
    assert model.get_embedding_dimension() == 8


def test_untrained_width_is_refused(base):
    model = SentenceTransformer(modules=[*base.children(), MatryoshkaTruncate([4, 8, 32])], device="cpu")
    with pytest.raises(ValueError, match="matryoshka_dim 16 was not trained; choose one of 4, 8, 32"):
        model.encode(TEXTS, matryoshka_dim=16)
    with pytest.raises(ValueError, match="was not trained; choose one of 4, 8"):
        MatryoshkaTruncate([4, 8], 16)
    with pytest.raises(ValueError, match="strictly increasing"):
        MatryoshkaTruncate([8, 4])


def test_embeddings_narrower_than_the_width_are_refused():
    narrow = torch.randn(2, 8)
    with pytest.raises(ValueError, match="width 8, so they cannot be cut to 16"):
        MatryoshkaTruncate([8, 16])({"sentence_embedding": narrow}, matryoshka_dim=16)
    with pytest.raises(ValueError, match="width 8, so they cannot be cut to 16"):
        MatryoshkaTruncate([16, 32])({"sentence_embedding": narrow})


def test_the_default_of_narrower_embeddings_is_the_largest_width_that_fits():
    module = MatryoshkaTruncate([2, 4, 8, 16], 8)
    for width, expected in ((7, 4), (8, 8), (16, 8)):
        found = module({"sentence_embedding": torch.randn(2, width)})["sentence_embedding"]
        assert found.shape == (2, expected)


def test_save_and_load(tmp_path):
    folder = tmp_path / "2_MatryoshkaTruncate"
    folder.mkdir()
    MatryoshkaTruncate([4, 8], 4).save(str(folder))
    assert json.loads((folder / "config.json").read_text()) == {"matryoshka_dims": [4, 8], "matryoshka_dim": 4}
    loaded = MatryoshkaTruncate.load(str(tmp_path), subfolder=folder.name, local_files_only=True, backend="torch")
    assert (loaded.matryoshka_dims, loaded.matryoshka_dim) == ([4, 8], 4)
    assert {file.name for file in tmp_path.glob("*.py")} == {
        "levels.py",
        "st_matryoshka_truncate.py",
        "st_repo_code.py",
    }
