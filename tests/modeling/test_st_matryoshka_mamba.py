"""The Matryoshka Mamba encoder as a sentence-transformers module."""

import copy

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer, BertTokenizer

from hf_matryoshka import MatryoshkaMambaTransformer, mamba_sentence_encoder, save_self_contained

from . import mamba_models


TEXTS = ["a cat", "the large river in the city of the small fish", "", "protein"]
LONG = "the large river in the city of the small fish " * 20
DIMS = [8, 16, 48]


@pytest.fixture(scope="module")
def tokenizer(tiny_sentence_transformer):
    """With special tokens, and with a limit of 64 tokens, as that of a transformer."""
    return AutoTokenizer.from_pretrained(tiny_sentence_transformer)


@pytest.fixture(scope="module")
def model(tokenizer):
    return mamba_sentence_encoder(mamba_models.make(), tokenizer)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_the_level_and_the_dimension_are_chosen_per_call(model, tokenizer):
    assert set(model.get_model_kwargs()) == {"level", "matryoshka_dim"}
    assert (model[0].levels, model[0].matryoshka_dims) == (("w0.25", "w0.5", "w1.0"), DIMS)
    assert len(model) == 1 and model.get_embedding_dimension() == 48
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    for level in model[0].levels:
        for dim in DIMS:
            with torch.no_grad():
                expected = model[0].model(**inputs, level=level, matryoshka_dim=dim).embeddings
            actual = model.encode(TEXTS, level=level, matryoshka_dim=dim)
            assert actual.shape == (4, dim) and actual.dtype == np.float32
            np.testing.assert_allclose(actual, expected, atol=1e-6)
            np.testing.assert_allclose(np.linalg.norm(actual, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(model.encode(TEXTS), model.encode(TEXTS, level="w1.0", matryoshka_dim=48))
    assert np.abs(model.encode(TEXTS) - model.encode(TEXTS, level=0)).max() > 0.01


def test_what_was_not_trained_is_refused(model):
    with pytest.raises(ValueError, match="level 'w0.3' does not exist; choose one of w0.25, w0.5, w1.0"):
        model.encode(TEXTS, level="w0.3")
    with pytest.raises(ValueError, match="matryoshka_dim 24 was not trained; choose one of 8, 16, 48"):
        model.encode(TEXTS, matryoshka_dim=24)


def test_a_small_embedding_is_a_prefix_of_a_large_one(model, tmp_path):
    for level in model[0].levels:
        full = model.encode(TEXTS, level=level)
        for dim in DIMS:
            small = model.encode(TEXTS, level=level, matryoshka_dim=dim)
            np.testing.assert_allclose(small, unit(full[:, :dim]), atol=1e-6)
            # The prefix of sentence-transformers points to the same side.
            np.testing.assert_array_equal(model.encode(TEXTS, level=level, truncate_dim=dim), full[:, :dim])
            normed = model.encode(TEXTS, level=level, truncate_dim=dim, normalize_embeddings=True)
            np.testing.assert_allclose(normed, small, atol=1e-6)
    model.save(str(tmp_path))
    short = SentenceTransformer(str(tmp_path), device="cpu", truncate_dim=8, trust_remote_code=True)
    assert short.get_embedding_dimension() == 8
    found, small = short.encode(TEXTS), model.encode(TEXTS, matryoshka_dim=8)
    np.testing.assert_allclose(short.similarity(found, found), model.similarity(small, small), atol=1e-6)


def test_all_dimensions_come_from_one_pass(model):
    texts = [*TEXTS, LONG, "bird", "a dog and a cat"]
    calls = []
    hook = model[0].model.head.register_forward_hook(lambda *_: calls.append(1))
    found = model[0].encode_all_dims(texts, level="w0.5", prompt="the ", batch_size=3)
    hook.remove()
    assert len(calls) == 3 and list(found) == DIMS
    for dim, embeddings in found.items():
        expected = model.encode(texts, level="w0.5", matryoshka_dim=dim, prompt="the ")
        assert isinstance(embeddings, np.ndarray) and embeddings.dtype == np.float32
        np.testing.assert_allclose(embeddings, expected, atol=1e-6)
    one = model[0].encode_all_dims("a dog and a cat", prompt="the ")
    np.testing.assert_allclose(one[16], model.encode("a dog and a cat", matryoshka_dim=16, prompt="the "), atol=1e-6)
    assert {dim: rows.shape for dim, rows in model[0].encode_all_dims([]).items()} == {d: (0, d) for d in DIMS}


def test_dimensions_with_a_width_of_their_own(tokenizer):
    model = mamba_sentence_encoder(mamba_models.make(dim_widths=[0.25, 0.5, 1.0]), tokenizer)
    found = model[0].encode_all_dims(TEXTS)
    for dim, level in zip(DIMS, ("w0.25", "w0.5", "w1.0"), strict=True):
        own = model.encode(TEXTS, matryoshka_dim=dim)
        np.testing.assert_array_equal(own, model.encode(TEXTS, matryoshka_dim=dim, level=level))
        np.testing.assert_allclose(found[dim], own, atol=1e-6)


@pytest.mark.parametrize("direction", ["causal", "block_bidirectional"])
def test_a_long_text_is_whole(tokenizer, direction):
    """Nine segments, and three times the limit of the tokenizer: as one forward over all of it."""
    model = mamba_sentence_encoder(mamba_models.make(direction=direction), tokenizer)
    assert tokenizer.model_max_length == 64 and model.max_seq_length >= 32768
    whole = mamba_models.make(direction=direction, segment_length=1024)
    inputs = tokenizer(LONG, return_tensors="pt")
    assert inputs["input_ids"].shape[1] > 180
    for level in whole.config.levels:
        with torch.no_grad():
            expected = whole(inputs["input_ids"], level=level).embeddings[0]
        # Beside short texts, which end in the first segment.
        np.testing.assert_allclose(model.encode([*TEXTS, LONG], level=level)[-1], expected, atol=1e-5)
    short = mamba_sentence_encoder(model[0].model, tokenizer, max_seq_length=64)
    assert short.max_seq_length == 64
    assert np.abs(short.encode(LONG) - model.encode(LONG)).max() > 1e-3


def test_an_empty_text_has_the_special_tokens(model, tokenizer):
    with torch.no_grad():
        expected = model[0].model(torch.tensor([tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]"])])).embeddings
    np.testing.assert_allclose(model.encode([""]), expected, atol=1e-6)
    np.testing.assert_allclose(model.encode(TEXTS)[2:3], expected, atol=1e-6)


def test_an_empty_text_without_special_tokens_is_zero(model, tokenizer):
    plain = copy.deepcopy(tokenizer)
    plain.backend_tokenizer.post_processor = None
    plain = mamba_sentence_encoder(model[0].model, plain)
    assert not plain.encode(["", ""]).any() and not plain[0].encode_all_dims("")[8].any()
    found = plain.encode(TEXTS)
    assert not found[2].any() and np.isfinite(found).all()
    np.testing.assert_allclose(np.linalg.norm(found[[0, 1, 3]], axis=1), 1, atol=1e-6)


def test_save_and_load(model, tmp_path):
    """Also from the code in the folder, and again after it was saved from there."""
    expected = {level: model.encode(TEXTS, level=level, matryoshka_dim=16) for level in model[0].levels}
    model.save(str(tmp_path / "package"))
    save_self_contained(model, tmp_path / "alone")
    for name, package in (("package", True), ("alone", False)):
        loaded = SentenceTransformer(str(tmp_path / name), trust_remote_code=True, device="cpu")
        assert isinstance(loaded[0], MatryoshkaMambaTransformer) == package
        loaded.save(str(tmp_path / f"{name}-again"))
        again = SentenceTransformer(str(tmp_path / f"{name}-again"), trust_remote_code=True, device="cpu")
        for found in (loaded, again):
            assert found.max_seq_length == model.max_seq_length
            assert found[0].encode_all_dims("a cat")[16].shape == (16,)
            for level, embeddings in expected.items():
                np.testing.assert_array_equal(found.encode(TEXTS, level=level, matryoshka_dim=16), embeddings)
    assert type(AutoModel.from_pretrained(tmp_path / "alone")) is type(model[0].model)
    root = {path.name for path in (tmp_path / "alone-again").iterdir() if path.is_file()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "modeling_matryoshka_mamba.py"} <= root
    assert {"st_matryoshka_mamba.py", "st_repo_code.py", "mamba_streaming.py", "band_head.py"} <= root


def test_the_tokenizer_gives_what_the_model_takes(tiny_sentence_transformer, tmp_path):
    """That of a BERT gives token_type_ids as well, which no call of the model takes."""
    bert = BertTokenizer.from_pretrained(tiny_sentence_transformer)
    mamba_sentence_encoder(mamba_models.make(), bert).save(str(tmp_path))
    reloaded = AutoTokenizer.from_pretrained(tmp_path)
    assert AutoModel.from_pretrained(tmp_path)(**reloaded("a cat", return_tensors="pt")).embeddings.shape == (1, 48)
    assert "token_type_ids" in bert("a cat") and bert.model_max_length == 64


def test_what_does_not_fit_is_refused(tiny_sentence_transformer, tokenizer):
    with pytest.raises(ValueError, match="holds a BertModel, but this module takes a MatryoshkaMambaModel"):
        MatryoshkaMambaTransformer(tiny_sentence_transformer)
    with pytest.raises(ValueError, match=f"the tokenizer has {len(tokenizer)} tokens, but the model knows 50"):
        mamba_sentence_encoder(mamba_models.make(vocab_size=50), tokenizer)
    bare = copy.deepcopy(tokenizer)
    bare.pad_token = None
    with pytest.raises(ValueError, match="the tokenizer has no padding token"):
        mamba_sentence_encoder(mamba_models.make(), bare)
