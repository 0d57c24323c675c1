"""Exports of a nested transformers model: what holds for every architecture that says how it is cut."""

import json
import os

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertForMaskedLM,
    BertModel,
    GPT2LMHeadModel,
    LlamaForCausalLM,
)

from hf_matryoshka.hub.export import export_level
from hf_matryoshka.hub.export_family import export_family
from hf_matryoshka.hub.gate import ExportError
from hf_matryoshka.hub.manifest import Manifest
from hf_matryoshka.hub.model_exporter import ModelExporter

from ..modeling import gpt_models


UNEVEN = [[16, 16], [32, 48, 64]]


@pytest.fixture(scope="module")
def tokenizer(tiny_sentence_transformer):
    return AutoTokenizer.from_pretrained(tiny_sentence_transformer)


@pytest.fixture(scope="module")
def make(tiny_nested, tokenizer):
    """A nested masked language model with the vocabulary of the tokenizer."""

    def build(name="TinyNestedForMaskedLM", **config):
        return tiny_nested.make(name, **{"vocab_size": len(tokenizer), "pad_token_id": 0, **config})

    return build


def sample():
    ids = torch.randint(5, 90, (3, 11), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@torch.no_grad()
def outputs(model, **kwargs):
    return model.eval()(**sample(), **kwargs)[0]


def test_each_level_takes_its_strongest_form(tmp_path, make, tokenizer):
    model = make(intermediate_sizes=UNEVEN)
    family = export_family(model, tmp_path, tokenizer=tokenizer)
    forms = {name: repo.form for name, repo in family.repos.items()}
    assert forms == {"f16-l2": "stock", "f64-l3": "stock_padded", "full": "remote_code"}
    assert max(repo.max_difference for repo in family.repos.values()) <= 1e-5


def test_a_stock_level_loads_without_its_code(tmp_path, make, tokenizer):
    model = make()
    exported = export_level(model, "f32-l3", tmp_path / "out", tokenizer=tokenizer)
    assert (exported.form, exported.reason) == ("stock", None)
    assert not list((tmp_path / "out").glob("*.py"))
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path / "out")
    assert type(loaded) is BertForMaskedLM and loaded.config.intermediate_size == 32
    torch.testing.assert_close(outputs(loaded), outputs(model, level="f32-l3"), atol=1e-5, rtol=0)
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("a cat")["input_ids"] == tokenizer("a cat")["input_ids"]
    assert 'AutoModelForMaskedLM.from_pretrained("sentence_transformers_model_id")' in card(tmp_path)


def test_the_tokenizer_is_saved_as_if_it_was_never_used(tmp_path, make, tokenizer):
    files = []
    for texts in (["a cat"], ["a cat", "a large dog"]):
        tokenizer(texts, padding=True, truncation=True, max_length=len(texts) + 3)
        export_level(make(), "f32-l3", tmp_path / "out", tokenizer=tokenizer)
        files.append([(tmp_path / "out" / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")])
    assert files[0] == files[1]


def test_a_padded_level_says_why(tmp_path, make):
    model = make("TinyNestedModel", intermediate_sizes=UNEVEN)
    exported = export_level(model, None, tmp_path / "out")
    assert exported.form == "stock_padded"
    assert "feed-forward widths 32, 48, 64, but those of BERT have one width" in exported.reason
    loaded = BertModel.from_pretrained(tmp_path / "out")
    assert loaded.config.intermediate_size == 64
    torch.testing.assert_close(outputs(loaded), outputs(model), atol=1e-5, rtol=0)
    assert exported.reason in card(tmp_path)
    assert Manifest.from_folder(tmp_path / "out").inputs == "tokens"


def test_remote_code_where_nothing_stock_is_exact(tmp_path, make, tokenizer):
    model = make(output_scale=2.0)
    exported = export_level(model, "f32-l3", tmp_path / "out", tokenizer=tokenizer, shard_by_level=True)
    assert (exported.form, exported.levels) == ("remote_code", ["f16-l2", "f32-l3"])
    assert exported.reason == "output_scale 2.0 multiplies the hidden states, which BERT does not do"
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert sorted(set(index["weight_map"].values())) == sorted(name for name in exported.files)
    assert "trust_remote_code=True" in card(tmp_path) and 'level="f16-l2"' in card(tmp_path)


@pytest.mark.parametrize("name", ["TinyNestedModel", "TinyNestedForMaskedLM", "TinyNestedForSequenceClassification"])
@pytest.mark.parametrize("level", ["f16-l2", "full"])
def test_every_head(tmp_path, make, tokenizer, name, level):
    exported = export_level(make(name), level, tmp_path / "out", tokenizer=tokenizer, format="remote_code")
    assert exported.form == "remote_code" and 0 <= exported.max_difference <= 1e-5


@pytest.mark.parametrize(
    "form, message", [("stock", "but those of BERT have one width"), ("stock_padded", "multiplies the hidden states")]
)
def test_a_form_that_is_not_exact_is_refused(tmp_path, make, form, message):
    model = make(intermediate_sizes=UNEVEN) if form == "stock" else make(output_scale=2.0)
    with pytest.raises(ValueError, match=message):
        export_level(model, None, tmp_path / "out", format=form)
    with pytest.raises(ValueError, match="ForMaskedLM needs no base_model; only an adaptor or a funnel does"):
        export_level(model, None, tmp_path / "out", base_model="x")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("form", ["stock", "remote_code"])
def test_the_gate_names_level_and_class(tmp_path, make, monkeypatch, form):
    model = make()
    write = ModelExporter._writer

    def wrong(self, form):
        inner = write(self, form)

        def run(folder):
            inner(folder)
            with torch.no_grad():
                model.base_model.encoder.layer[0].output.dense.weight[0, 20] += 0.5

        return run

    monkeypatch.setattr(ModelExporter, "_writer", wrong)
    with pytest.raises(ExportError, match=r"out differs from the trained model at level f32-l3 \(AutoModel\) by"):
        export_level(model, "f32-l3", tmp_path / "out", format=form)
    assert not os.listdir(tmp_path)


def test_another_tokenizer_is_noticed(tmp_path, make, tokenizer, monkeypatch):
    def save_with_capitals(self, folder):
        text = self.backend_tokenizer.to_str().replace('"lowercase":true', '"lowercase":false')
        (folder / "tokenizer.json").write_text(text)
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')

    monkeypatch.setattr(type(tokenizer), "save_pretrained", save_with_capitals)
    with pytest.raises(ExportError, match="does not load back: its tokenizer reads .* in another way"):
        export_level(make(), "f16-l2", tmp_path / "out", tokenizer=tokenizer)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "name, output", [("TinyNestedForMaskedLM", "logits"), ("TinyNestedForSequenceClassification", "logits")]
)
def test_onnx(tmp_path, make, name, output):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = make(name)
    exported = export_level(model, "f32-l3", tmp_path / "out", onnx=True)
    assert {"onnx/model.onnx", "onnx/model_int8.onnx"} <= set(exported.files)
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "onnx" / "model.onnx"))
    for batch, length in ((1, 3), (4, 30)):
        ids = torch.randint(5, 90, (batch, length), generator=torch.Generator().manual_seed(2))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        (actual,) = session.run([output], {key: value.numpy() for key, value in inputs.items()})
        with torch.no_grad():
            expected = model(**inputs, level="f32-l3")[0]
        torch.testing.assert_close(torch.from_numpy(actual), expected, atol=1e-5, rtol=0)
    assert "InferenceSession(" in card(tmp_path) and "mean cosine" in card(tmp_path)


def card(folder):
    return (folder / "out" / "README.md").read_text()


@pytest.mark.parametrize(("kind", "stock"), [("layers", LlamaForCausalLM), ("gpt2", GPT2LMHeadModel)])
def test_every_level_of_a_gpt_is_a_stock_decoder(kind, stock, tmp_path):
    model = gpt_models.make(kind)
    ids, mask = gpt_models.prompts()
    family = export_family(model, tmp_path / "family")
    assert {repo.name: repo.form for repo in family.manifest.repos} == {
        **dict.fromkeys(model.config.levels, "stock"),
        "full": "remote_code",
    }
    for level in model.config.levels:
        folder = tmp_path / "family" / level
        assert not list(folder.glob("*.py"))
        loaded = AutoModelForCausalLM.from_pretrained(folder)
        assert type(loaded) is stock
        expected = model.generate(ids, attention_mask=mask, level=level, max_new_tokens=8)
        assert torch.equal(loaded.generate(ids, attention_mask=mask, max_new_tokens=8), expected)
    shown = (tmp_path / "family" / "full" / "README.md").read_text()
    assert f'draft_level="{model.config.levels[0]}"' in shown
    padded = export_level(gpt_models.make("output"), "d16", tmp_path / "padded", format="stock_padded")
    assert padded.form == "stock_padded"
