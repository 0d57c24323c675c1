"""Nested text encoders as a sentence-transformers module."""

import threading

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from hf_matryoshka import NestedTransformer, nest_sentence_encoder, save_self_contained


TEXTS = ["a cat", "the large river in the city of the small fish", "protein"]
BUDGETS = [[0.25, 1, 1], [0.5, 2, 2], [1.0, 2, 2]]


@pytest.fixture(scope="module", params=["full", "joint"])
def model(request, tiny_sentence_transformer):
    return nest_sentence_encoder(tiny_sentence_transformer, BUDGETS, [4, 16, 32], residual=request.param)


def test_the_level_and_the_width_are_chosen_per_call(model):
    assert set(model.get_model_kwargs()) == {"level", "matryoshka_dim"}
    assert model[0].levels == ("w0.25-h1-d1", "w0.5-h2-d2", "w1.0-h2-d2")
    tokens = model.tokenizer(TEXTS, padding=True, return_tensors="pt")
    mask = tokens["attention_mask"].unsqueeze(-1)
    for level in model[0].levels:
        with torch.no_grad():
            hidden = model[0].model(**tokens, level=level).last_hidden_state
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        expected = torch.nn.functional.normalize(pooled[:, :4], dim=-1)
        np.testing.assert_allclose(model.encode(TEXTS, level=level, matryoshka_dim=4), expected, atol=1e-6)
    np.testing.assert_array_equal(model.encode(TEXTS), model.encode(TEXTS, level="w1.0-h2-d2"))
    smallest = model.encode(TEXTS, level=0)
    # Half of the heads: half of the residual stream, if the two are tied.
    assert smallest.shape == (3, 16 if model[0].model.config.residual == "joint" else 32)
    np.testing.assert_allclose(np.linalg.norm(smallest, axis=1), 1, atol=1e-6)
    assert model.get_embedding_dimension() == 32


def test_an_unknown_level_is_refused(model):
    with pytest.raises(ValueError, match="level 'w0.3-h1-d1' does not exist; choose one of w0.25-h1-d1, w0.5-h2-d2"):
        model.encode(TEXTS, level="w0.3-h1-d1")


def test_threads_do_not_disturb_each_other(model):
    expected = {level: model.encode(TEXTS, level=level) for level in model[0].levels}
    wrong = []

    def work(level):
        features = model.preprocess(TEXTS)
        for _ in range(10):
            with torch.no_grad():
                found = model(dict(features), level=level)["sentence_embedding"].numpy()
            if not np.allclose(found, expected[level], atol=1e-5):
                wrong.append(level)

    threads = [threading.Thread(target=work, args=(level,)) for level in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_save_and_load(model, tmp_path):
    """Also from the code in the folder, and again after it was saved from there."""
    expected = {level: model.encode(TEXTS, level=level) for level in model[0].levels}
    model.save(str(tmp_path / "package"))
    save_self_contained(model, tmp_path / "alone")
    for name, package in (("package", True), ("alone", False)):
        loaded = SentenceTransformer(str(tmp_path / name), trust_remote_code=True, device="cpu")
        assert isinstance(loaded[0], NestedTransformer) == package
        loaded.save(str(tmp_path / f"{name}-again"))
        again = SentenceTransformer(str(tmp_path / f"{name}-again"), trust_remote_code=True, device="cpu")
        for level, embeddings in expected.items():
            np.testing.assert_allclose(loaded.encode(TEXTS, level=level), embeddings, atol=1e-6)
            np.testing.assert_allclose(again.encode(TEXTS, level=level), embeddings, atol=1e-6)
        assert again.max_seq_length == model.max_seq_length
    assert type(AutoModel.from_pretrained(tmp_path / "alone")) is type(model[0].model)
    root = {path.name for path in (tmp_path / "alone-again").iterdir() if path.is_file()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "modeling_delta_bert.py"} <= root
    assert {"st_nested_transformer.py", "st_matryoshka_truncate.py", "st_repo_code.py", "budgets.py"} <= root


def test_a_model_without_levels_is_refused(tiny_sentence_transformer):
    with pytest.raises(ValueError, match="holds a BertModel, which has no levels; use the module Transformer"):
        NestedTransformer(tiny_sentence_transformer)
