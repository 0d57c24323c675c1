"""Exports of sentence-embedding models whose encoder is nested."""

import filecmp
import os
import re

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoModel, AutoTokenizer, BertModel, ModernBertConfig, ModernBertModel

from hf_matryoshka import CardDetails, export_family, export_level, nest_sentence_encoder
from hf_matryoshka.evaluation.curve import Curve, LevelPoint
from hf_matryoshka.hub.cards import UNKNOWN_MODEL_ID
from hf_matryoshka.hub.family import load_family
from hf_matryoshka.hub.gate import ExportError
from hf_matryoshka.hub.manifest import Manifest
from hf_matryoshka.hub.sentence_encoder_exporter import SentenceEncoderExporter


TEXTS = ["a cat", "the large river in the city of the small fish", "protein"]
# A chain: all heads, then one of two heads.
CHAIN = [[0.25, 2, 1], [0.5, 2, 2], [1.0, 2, 2]]
HEADS = [[0.25, 1, 1], [1.0, 2, 2]]


@pytest.fixture(scope="module")
def model(base):
    return nest_sentence_encoder(base, CHAIN, [4, 16, 32])


def load(folder, **kwargs):
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True, **kwargs)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_family_is_stock_and_the_same_each_time(tmp_path, model):
    family = export_family(model, tmp_path / "one", shard_by_level=True)
    forms = {name: repo.form for name, repo in family.repos.items()}
    assert forms == {"w0.25-h2-d1": "stock", "w0.5-h2-d2": "stock", "w1.0-h2-d2": "stock", "full": "remote_code"}
    assert max(repo.max_difference for repo in family.repos.values()) <= 1e-5
    for level in model[0].levels:
        folder = tmp_path / "one" / level
        assert not list(folder.rglob("*.py"))
        loaded = load(folder)
        assert [type(module) for module in loaded] == [Transformer, Pooling, Normalize]
        assert type(AutoModel.from_pretrained(folder)) is BertModel
        np.testing.assert_allclose(loaded.encode(TEXTS), model.encode(TEXTS, level=level), atol=1e-5)
        expected = model.encode(TEXTS, level=level, prompt_name="query")
        np.testing.assert_allclose(loaded.encode(TEXTS, prompt_name="query"), expected, atol=1e-5)
        short = load(folder, truncate_dim=4).encode(TEXTS, normalize_embeddings=True)
        np.testing.assert_allclose(short, model.encode(TEXTS, level=level, matryoshka_dim=4), atol=1e-5)
    full = load(tmp_path / "one" / "full", trust_remote_code=True)
    assert len(list((tmp_path / "one" / "full").glob("model-*.safetensors"))) == 3
    for level in model[0].levels:
        expected = model.encode(TEXTS, level=level, matryoshka_dim=16)
        np.testing.assert_allclose(full.encode(TEXTS, level=level, matryoshka_dim=16), expected, atol=1e-5)

    for name in ("w0.25-h2-d1", "full"):
        card = (tmp_path / "one" / name / "README.md").read_text().replace(UNKNOWN_MODEL_ID, f"{tmp_path}/one/{name}")
        snippets = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
        assert len(snippets) == 3
        for code in snippets:
            exec(code, {})

    export_family(model, tmp_path / "two", shard_by_level=True)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    for name in files(tmp_path / "one"):
        assert filecmp.cmp(tmp_path / "one" / name, tmp_path / "two" / name, shallow=False), name


def test_manifest_and_card_say_what_a_level_costs(tmp_path, model):
    points = [LevelPoint(level, None, 0.6 + 0.1 * row) for row, level in enumerate(model[0].levels)]
    card = CardDetails(base_model="me/base", curves=[Curve(points, "spearman", "test", "ours")])
    export_level(model, "w0.5-h2-d2", tmp_path / "out", card=card)
    manifest = Manifest.from_folder(tmp_path / "out")
    level = manifest.level("w0.5-h2-d2")
    assert manifest.inputs == "text" and manifest.matryoshka_dims == [4, 16, 32]
    assert (level.dim, level.budget, level.cost["bytes_per_vector"]) == (32, [0.5, 2, 2], 128)
    cost = model[0].model.cost("w0.5-h2-d2")
    assert level.cost["flops_per_token"] == 2 * cost["macs"] and level.cost["parameters"] == cost["parameters"]
    text = (tmp_path / "out" / "README.md").read_text()
    assert f"| **w0.5-h2-d2** | **0.5** | **2** | **2** | **32** | **128** | **{cost['parameters']:,}** |" in text
    assert f"**{2 * cost['macs']:,}** | **0.700** |" in text
    assert "truncate_dim=4)" in text and "library_name: sentence-transformers" in text


def test_a_narrower_residual_stream_is_stock(tmp_path, base):
    model = nest_sentence_encoder(base, HEADS, [4, 16, 24], residual="joint")
    family = export_family(model, tmp_path)
    assert {repo.form for repo in family.levels.values()} == {"stock"}
    small, large = (load(tmp_path / level) for level in model[0].levels)
    assert small[0].model.config.hidden_size == small[1].embedding_dimension == 16
    # 24 of 32 dimensions are a stock Dense.
    assert [type(module) for module in large] == [Transformer, Pooling, Dense, Normalize]
    for loaded, level, width in ((small, 0, 16), (large, 1, 24)):
        assert loaded.get_embedding_dimension() == width
        np.testing.assert_allclose(loaded.encode(TEXTS), model.encode(TEXTS, level=level), atol=1e-5)
    assert [level.dim for level in family.manifest.levels] == [16, 24]
    exported = export_level(model, 0, tmp_path / "nested" / "w", format="remote_code")
    nested = load(tmp_path / "nested" / "w", trust_remote_code=True)
    assert exported.levels == ["w0.25-h1-d1"] and nested[2].matryoshka_dims == [4, 16]
    np.testing.assert_allclose(nested.encode(TEXTS), model.encode(TEXTS, level=0), atol=1e-5)


def test_fewer_heads_in_the_full_residual_stream(tmp_path, base):
    model = nest_sentence_encoder(base, HEADS)
    with pytest.raises(ValueError, match="1 heads of width 16, .*padded with zeros it can be stock"):
        export_level(model, 0, tmp_path / "stock", format="stock")
    assert not os.listdir(tmp_path)
    padded = export_level(model, 0, tmp_path / "padded")
    assert padded.form == "stock_padded"
    np.testing.assert_allclose(load(tmp_path / "padded").encode(TEXTS), model.encode(TEXTS, level=0), atol=1e-5)
    assert export_level(model, None, tmp_path / "nested", format="remote_code").levels == list(model[0].levels)


def test_modules_of_other_packages_have_no_stock_form(tmp_path, tiny_sentence_transformer):
    class Shift(Normalize):
        pass

    encoder = nest_sentence_encoder(tiny_sentence_transformer, CHAIN)
    model = SentenceTransformer(modules=[*encoder.children(), Shift()], device="cpu").eval()
    with pytest.raises(ValueError, match="its module Shift is none of sentence-transformers"):
        export_level(model, 0, tmp_path / "out", format="stock")


def test_modernbert_with_a_dense_layer(tmp_path, tiny_sentence_transformer):
    AutoTokenizer.from_pretrained(tiny_sentence_transformer).save_pretrained(tmp_path / "encoder")
    config = ModernBertConfig(
        vocab_size=99, hidden_size=32, num_attention_heads=4, num_hidden_layers=3, intermediate_size=48, pad_token_id=0
    )
    torch.manual_seed(0)
    ModernBertModel(config).save_pretrained(tmp_path / "encoder")
    modules = [Transformer(str(tmp_path / "encoder")), Pooling(32, "cls"), Dense(32, 24)]
    model = nest_sentence_encoder(SentenceTransformer(modules=modules, device="cpu"), [[0.5, 4, 2], [1.0, 4, 3]])
    export_level(model, 0, tmp_path / "out")
    loaded = load(tmp_path / "out")
    assert [type(module) for module in loaded] == [Transformer, Pooling, Dense] and loaded[1].pooling_mode == "cls"
    assert loaded.encode(TEXTS).shape == (3, 24)
    level = Manifest.from_folder(tmp_path / "out").level("w0.5-h4-d2")
    assert (level.dim, level.cost["bytes_per_vector"]) == (24, 4 * 24)
    np.testing.assert_allclose(loaded.encode(TEXTS), model.encode(TEXTS, level=0), atol=1e-5)


def test_the_gate_compares_embeddings(tmp_path, model, monkeypatch):
    around = SentenceEncoderExporter._around

    def wrong(self, small, nested):
        found = around(self, small, nested)
        found[1].pooling_mode = "max"
        return found

    monkeypatch.setattr(SentenceEncoderExporter, "_around", wrong)
    for form in ("stock", "remote_code"):
        message = r"differs from the trained model at level w0.25-h2-d1 \(SentenceTransformer\)"
        with pytest.raises(ExportError, match=message):
            export_level(model, 0, tmp_path / "out", format=form)
    assert not os.listdir(tmp_path)


def test_the_gate_notices_another_maximum_length(tmp_path, model, monkeypatch):
    around = SentenceEncoderExporter._around

    def wrong(self, small, nested):
        found = around(self, small, nested)
        found.max_seq_length = 32
        return found

    monkeypatch.setattr(SentenceEncoderExporter, "_around", wrong)
    with pytest.raises(ExportError, match="it cuts texts at 32 tokens, the trained model at 64"):
        export_level(model, 0, tmp_path / "out")


def test_bad_arguments(tmp_path, model, base, tiny_sentence_transformer):
    for kwargs in ({"base_model": base}, {"tokenizer": model.tokenizer}):
        with pytest.raises(ValueError, match="has a tokenizer and needs no base_model; give neither"):
            export_level(model, None, tmp_path / "out", **kwargs)
    with pytest.raises(ValueError, match="level 'd64' does not exist; choose one of w0.25-h2-d1"):
        export_level(model, "d64", tmp_path / "out")
    short = SentenceTransformer(modules=list(model.children()), device="cpu", truncate_dim=8)
    with pytest.raises(ValueError, match="truncate_dim=8, which an export cannot hold"):
        export_level(short, None, tmp_path / "out")
    assert not os.listdir(tmp_path)


def test_onnx(tmp_path, model):
    pytest.importorskip("onnxruntime")
    exported = export_level(model, "w0.5-h2-d2", tmp_path / "out", onnx=True)
    assert {"onnx/model.onnx", "onnx/model_int8.onnx"} <= set(exported.files)
    loaded = load(tmp_path / "out" / "onnx", trust_remote_code=True)
    for dim in (4, 32):
        expected = model.encode(TEXTS, level="w0.5-h2-d2", matryoshka_dim=dim)
        np.testing.assert_allclose(loaded.encode(TEXTS, matryoshka_dim=dim), expected, atol=1e-5)


def test_push(tmp_path, hub, model):
    report = export_family(model, tmp_path / "family").push("me/demo")
    assert set(hub.repos("model")) == {"me/demo", *(f"me/demo-{level}" for level in model[0].levels)}
    assert report.collection.startswith("me/demo")
    expected = model.encode(TEXTS, level="w0.5-h2-d2")
    np.testing.assert_allclose(SentenceTransformer("me/demo-w0.5-h2-d2").encode(TEXTS), expected, atol=1e-5)
    full = SentenceTransformer("me/demo", trust_remote_code=True)
    np.testing.assert_allclose(full.encode(TEXTS, level="w0.5-h2-d2"), expected, atol=1e-5)
    assert load_family("me/demo-w0.5-h2-d2").manifest.matryoshka_dims == [4, 16, 32]
    assert export_family(model, tmp_path / "family").push("me/demo").repos[0].change.empty
