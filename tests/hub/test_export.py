"""One level as a repo, and the gate in front of it."""

import json
import os

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from hf_matryoshka.hub import export
from hf_matryoshka.hub.export import export_level
from hf_matryoshka.hub.exported_level import ExportedLevel
from hf_matryoshka.hub.gate import ExportError


TEXTS = ["a cat", "the large river in the city", "protein treats small fish", "bird"]


def expected(model, base, level, texts=TEXTS):
    with torch.no_grad():
        return model(torch.from_numpy(base.encode(texts)), level=level).embeddings.numpy()


@pytest.mark.parametrize("kind", ["mlp", "linear", "orthogonal", "permutation"])
def test_stock_export(tmp_path, base, make_adaptor, kind):
    model = make_adaptor(kind)
    exported = export_level(model, "d8", tmp_path / "d8", base_model=base)
    assert exported == ExportedLevel(tmp_path / "d8", "d8", [8], True, True, exported.max_difference)
    assert exported.max_difference < 1e-5
    loaded = SentenceTransformer(str(tmp_path / "d8"), device="cpu", local_files_only=True)
    np.testing.assert_allclose(loaded.encode(TEXTS), expected(model, base, "d8"), atol=1e-5)
    assert loaded.get_embedding_dimension() == 8
    assert loaded.prompts["query"] == "the question "
    assert not list((tmp_path / "d8").rglob("*.py"))
    types = [module["type"] for module in json.loads((tmp_path / "d8" / "modules.json").read_text())]
    assert all(name.startswith("sentence_transformers.") for name in types)


def test_remote_code_export_is_one_repo_for_both_loaders(tmp_path, base, make_adaptor):
    model = make_adaptor(hidden_act="gelu")
    exported = export_level(model, "d8", tmp_path / "d8", base_model=base)
    assert (exported.stock, exported.matryoshka_dims) == (False, [4, 8])
    assert (tmp_path / "d8" / "0_Transformer" / "config.json").is_file()
    modules = json.loads((tmp_path / "d8" / "modules.json").read_text())
    assert (modules[-1]["path"], modules[-1]["type"]) == ("", "st_matryoshka_adaptor.MatryoshkaAdaptor")
    config = json.loads((tmp_path / "d8" / "config.json").read_text())
    assert config["matryoshka_dims"] == [4, 8]
    loaded = SentenceTransformer(str(tmp_path / "d8"), device="cpu", trust_remote_code=True, local_files_only=True)
    assert loaded.prompts["query"] == "the question "
    np.testing.assert_allclose(loaded.encode(TEXTS), expected(model, base, "d8"), atol=1e-5)
    np.testing.assert_allclose(loaded.encode(TEXTS, matryoshka_dim=4), expected(model, base, "d4"), atol=1e-5)
    with pytest.raises(ValueError, match="32 was not trained; choose one of 4, 8"):
        loaded.encode(TEXTS, matryoshka_dim=32)


def test_black_box_vectors_need_no_base_model(tmp_path, make_adaptor):
    model = make_adaptor()
    exported = export_level(model, "d8", tmp_path / "d8")
    assert (exported.stock, exported.with_base) == (False, False)
    assert not (tmp_path / "d8" / "modules.json").exists()
    loaded = type(model).from_pretrained(tmp_path / "d8")
    x = torch.randn(3, 32)
    torch.testing.assert_close(loaded(x).embeddings, model(x, level="d8").embeddings)


def test_base_model_as_a_folder_and_the_caller_is_left_alone(tmp_path, base, tiny_sentence_transformer, make_adaptor):
    model = make_adaptor().train()
    export_level(model, 0, tmp_path / "a", base_model=tiny_sentence_transformer, stock=True)
    export_level(model, 0, tmp_path / "b", base_model=base, stock=False)
    assert model.training
    assert len(base) == 3 and base[0].save_in_root and "save_in_root" not in vars(base[0])


def test_an_earlier_export_is_replaced_and_a_foreign_folder_is_not(tmp_path, make_adaptor):
    model = make_adaptor()
    export_level(model, "d4", tmp_path / "out")
    export_level(model, "d8", tmp_path / "out")
    assert ExportedLevel.from_folder(tmp_path / "out").level == "d8"
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        export_level(model, "d8", tmp_path / "foreign")
    export_level(model, "d8", tmp_path / "foreign", overwrite=True)
    assert not (tmp_path / "foreign" / "thesis.tex").exists()


@pytest.mark.parametrize(
    "level, kwargs, error, message",
    [
        ("d5", {}, ValueError, "level 'd5' does not exist; choose one of d4, d8, d32"),
        ("d8", {"stock": True}, ValueError, "needs base_model"),
        ("d8", {"stock": "always"}, ValueError, "stock must be True, False or 'auto', but is 'always'"),
        ("d8", {"base_model": "no/such"}, FileNotFoundError, "base_model no/such is not a folder"),
        ("d8", {"plot": "no.png"}, FileNotFoundError, "plot no.png does not exist"),
    ],
)
def test_bad_arguments(tmp_path, make_adaptor, level, kwargs, error, message):
    with pytest.raises(error, match=message):
        export_level(make_adaptor(), level, tmp_path / "out", **kwargs)
    assert not os.listdir(tmp_path)


def test_a_base_model_that_does_not_fit(tmp_path, base, tiny_sentence_transformer, make_adaptor):
    narrow = make_adaptor(embedding_dim=16, matryoshka_dims=[4, 16])
    with pytest.raises(ValueError, match="base_model gives embeddings of width 32, but the adaptor takes 16"):
        export_level(narrow, "d4", tmp_path / "out", base_model=base)
    truncated = SentenceTransformer(tiny_sentence_transformer, device="cpu", truncate_dim=16, local_files_only=True)
    with pytest.raises(ValueError, match="truncate_dim=16"):
        export_level(narrow, "d4", tmp_path / "out", base_model=truncated)
    with pytest.raises(ValueError, match="hidden_act 'gelu' has no exact stock form"):
        export_level(make_adaptor(hidden_act="gelu"), "d4", tmp_path / "out", base_model=base, stock=True)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("stock", [True, False])
def test_the_gate_stops_wrong_weights(tmp_path, base, make_adaptor, monkeypatch, stock):
    save_stock, save_remote_code = export._save_stock, export._save_remote_code

    def save_wrong_layers(base, layers, folder):
        layers[0].weight[0, 0] += 0.01
        save_stock(base, layers, folder)

    @torch.no_grad()
    def save_wrong_adaptor(base, adaptor, folder):
        adaptor.adaptor.projection.weight[0, 0] += 0.01
        save_remote_code(base, adaptor, folder)

    monkeypatch.setattr(export, "_save_stock", save_wrong_layers)
    monkeypatch.setattr(export, "_save_remote_code", save_wrong_adaptor)
    with pytest.raises(ExportError, match="out differs from the trained model by .*e-0., more than 1e-05"):
        export_level(make_adaptor("linear"), "d8", tmp_path / "out", base_model=base, stock=stock)
    assert not os.listdir(tmp_path)


def test_the_gate_stops_weights_that_are_not_numbers(tmp_path, make_adaptor):
    model = make_adaptor("linear")
    with torch.no_grad():
        model.adaptor.projection.weight[0, 0] = torch.nan
    with pytest.raises(ExportError, match="differs from the trained model by inf"):
        export_level(model, "d8", tmp_path / "out")
    assert not os.listdir(tmp_path)


def test_the_gate_runs_the_code_of_the_repo(tmp_path, make_adaptor, monkeypatch):
    model = make_adaptor()

    def save_without_siblings(base, adaptor, folder):
        adaptor.save_pretrained(folder)
        (folder / "nested_layers.py").unlink()

    monkeypatch.setattr(export, "_save_remote_code", save_without_siblings)
    with pytest.raises(ExportError, match="the export out does not load back: .*nested_layers"):
        export_level(model, "d8", tmp_path / "out")
    assert not os.listdir(tmp_path)


def test_half_precision_has_its_own_tolerance(tmp_path, tiny_sentence_transformer, make_adaptor):
    half = SentenceTransformer(
        tiny_sentence_transformer, device="cpu", model_kwargs={"dtype": torch.bfloat16}, local_files_only=True
    )
    exported = export_level(make_adaptor(), "d8", tmp_path / "out", base_model=half)
    assert 1e-5 < exported.max_difference < 0.04


def test_no_record_no_export(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no exported level"):
        ExportedLevel.from_folder(tmp_path)
