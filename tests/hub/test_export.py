"""One level as a repo, and the gate in front of it."""

import json
import os
import resource

import numpy as np
import pytest
import torch
from peft import LoraConfig
from sentence_transformers import SentenceTransformer

from hf_matryoshka.evaluation.certificate import certify_chain, describe_split
from hf_matryoshka.hub.adaptor_exporter import AdaptorExporter
from hf_matryoshka.hub.cards import CardDetails
from hf_matryoshka.hub.export import export_level
from hf_matryoshka.hub.gate import ExportError
from hf_matryoshka.hub.manifest import FamilyRepo, Manifest, check_weights, weight_hashes
from hf_matryoshka.trainers.nested_lora import get_nested_lora_model


TEXTS = ["a cat", "the large river in the city", "protein treats small fish", "bird"]


def expected(model, base, level, texts=TEXTS):
    with torch.no_grad():
        return model(torch.from_numpy(base.encode(texts)), level=level).embeddings.numpy()


@pytest.mark.parametrize("kind", ["mlp", "linear", "orthogonal", "permutation"])
def test_stock_export(tmp_path, base, make_adaptor, kind):
    model = make_adaptor(kind)
    exported = export_level(model, "d8", tmp_path / "d8", base_model=base)
    files = weight_hashes(tmp_path / "d8")
    assert exported == FamilyRepo("d8", str(tmp_path / "d8"), ["d8"], "stock", None, exported.max_difference, files)
    assert 0 <= exported.max_difference < 1e-5 and len(files) == (3 if kind == "mlp" else 2)
    loaded = SentenceTransformer(str(tmp_path / "d8"), device="cpu", local_files_only=True)
    np.testing.assert_allclose(loaded.encode(TEXTS), expected(model, base, "d8"), atol=1e-5)
    assert loaded.get_embedding_dimension() == 8
    assert loaded.prompts["query"] == "the question "
    assert not list((tmp_path / "d8").rglob("*.py"))
    types = [module["type"] for module in json.loads((tmp_path / "d8" / "modules.json").read_text())]
    assert all(name.startswith("sentence_transformers.") for name in types)


def test_remote_code_export_is_one_repo_for_both_loaders(tmp_path, base, make_adaptor):
    model = make_adaptor(hidden_act="tanh")
    exported = export_level(model, "d8", tmp_path / "d8", base_model=base)
    assert (exported.form, exported.levels) == ("remote_code", ["d4", "d8"])
    assert "hidden_act 'tanh' has no exact stock form" in exported.reason
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
    assert (exported.stock, Manifest.from_folder(tmp_path / "d8").inputs) == (False, "embeddings")
    assert not (tmp_path / "d8" / "modules.json").exists()
    loaded = type(model).from_pretrained(tmp_path / "d8")
    x = torch.randn(3, 32)
    torch.testing.assert_close(loaded(x).embeddings, model(x, level="d8").embeddings)


def test_base_model_as_a_folder_and_the_caller_is_left_alone(tmp_path, base, tiny_sentence_transformer, make_adaptor):
    model = make_adaptor().train()
    export_level(model, 0, tmp_path / "a", base_model=tiny_sentence_transformer, format="stock")
    export_level(model, 0, tmp_path / "b", base_model=base, format="remote_code")
    assert model.training
    assert len(base) == 3 and base[0].save_in_root and "save_in_root" not in vars(base[0])


def test_an_earlier_export_is_replaced_and_a_foreign_folder_is_not(tmp_path, make_adaptor):
    model = make_adaptor()
    export_level(model, "d4", tmp_path / "out")
    export_level(model, "d8", tmp_path / "out")
    assert Manifest.from_folder(tmp_path / "out").this == "d8"
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
        ("d8", {"format": "stock"}, ValueError, "so it holds the base model, and base_model was not given"),
        ("d8", {"format": "stock_padded", "base_model": "BASE"}, ValueError, "an adaptor has no zero-padded form"),
        (
            "d8",
            {"format": "dense"},
            ValueError,
            "format must be auto, stock, stock_padded or remote_code, but is 'dense'",
        ),
        ("d8", {"tokenizer": object()}, ValueError, "takes embeddings and no tokenizer"),
        ("d8", {"base_model": "no/such"}, FileNotFoundError, "base_model no/such is not a folder"),
        ("d8", {"card": CardDetails(plot="no.png")}, FileNotFoundError, "plot no.png does not exist"),
    ],
)
def test_bad_arguments(tmp_path, base, make_adaptor, level, kwargs, error, message):
    if kwargs.get("base_model") == "BASE":
        kwargs = {**kwargs, "base_model": base}
    with pytest.raises(error, match=message):
        export_level(make_adaptor(), level, tmp_path / "out", **kwargs)
    assert not os.listdir(tmp_path)


def test_a_certificate_of_another_model_is_refused(tmp_path, make_adaptor):
    losses = {"d4": np.linspace(1, 2, 30), "d16": np.linspace(0, 1, 30)}
    splits = {"calibration": describe_split(9, ["a"]), "certificate": describe_split(30, ["b"])}
    certificate = certify_chain(losses, None, metric="nll", unit="rows", gates=[], resamples=50, **splits)
    with pytest.raises(ValueError, match="is about level d16, which the model does not have; its levels are d4, d8"):
        export_level(make_adaptor(), "d4", tmp_path / "out", card=CardDetails(certificate=certificate))
    assert not os.listdir(tmp_path)


def test_a_base_model_that_does_not_fit(tmp_path, base, tiny_sentence_transformer, make_adaptor):
    narrow = make_adaptor(embedding_dim=16, matryoshka_dims=[4, 16])
    with pytest.raises(ValueError, match="base_model gives embeddings of width 32, but the adaptor takes 16"):
        export_level(narrow, "d4", tmp_path / "out", base_model=base)
    truncated = SentenceTransformer(tiny_sentence_transformer, device="cpu", truncate_dim=16, local_files_only=True)
    with pytest.raises(ValueError, match="truncate_dim=16"):
        export_level(narrow, "d4", tmp_path / "out", base_model=truncated)
    with pytest.raises(ValueError, match="hidden_act 'tanh' has no exact stock form"):
        export_level(make_adaptor(hidden_act="tanh"), "d4", tmp_path / "out", base_model=base, format="stock")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("form", ["stock", "remote_code"])
def test_the_gate_stops_wrong_weights(tmp_path, base, make_adaptor, monkeypatch, form):
    write_stock, write_remote_code = AdaptorExporter._write_stock, AdaptorExporter._write_remote_code

    def write_wrong_layers(self, layers, folder):
        layers[0].weight[0, 0] += 0.01
        write_stock(self, layers, folder)

    @torch.no_grad()
    def write_wrong_adaptor(self, adaptor, folder):
        adaptor.adaptor.projection.weight[0, 0] += 0.01
        write_remote_code(self, adaptor, folder)

    monkeypatch.setattr(AdaptorExporter, "_write_stock", write_wrong_layers)
    monkeypatch.setattr(AdaptorExporter, "_write_remote_code", write_wrong_adaptor)
    level = "d8" if form == "stock" else "d4"
    message = rf"out differs from the trained model at level {level} \(.*\) by .*e-0., more than 1e-05"
    with pytest.raises(ExportError, match=message):
        export_level(make_adaptor("linear"), "d8", tmp_path / "out", base_model=base, format=form)
    assert not os.listdir(tmp_path)


def test_the_gate_stops_weights_that_are_not_numbers(tmp_path, make_adaptor):
    model = make_adaptor("linear")
    with torch.no_grad():
        model.adaptor.projection.weight[0, 0] = torch.nan
    with pytest.raises(ExportError, match="differs from the trained model at level d4 .* by inf"):
        export_level(model, "d8", tmp_path / "out")
    assert not os.listdir(tmp_path)


def test_the_gate_runs_the_code_of_the_repo(tmp_path, make_adaptor, monkeypatch):
    model = make_adaptor()

    def write_with_an_empty_sibling(self, adaptor, folder):
        adaptor.save_pretrained(folder)
        (folder / "nested_layers.py").write_text("")

    monkeypatch.setattr(AdaptorExporter, "_write_remote_code", write_with_an_empty_sibling)
    with pytest.raises(ExportError, match="the export out does not load back: .*nested_layers"):
        export_level(model, "d8", tmp_path / "out")

    def write_without_siblings(self, adaptor, folder):
        adaptor.save_pretrained(folder)
        (folder / "nested_layers.py").unlink()

    monkeypatch.setattr(AdaptorExporter, "_write_remote_code", write_without_siblings)
    with pytest.raises(ValueError, match="the export out brings .* imports .nested_layers in line .*, but no such"):
        export_level(model, "d8", tmp_path / "out")
    assert not os.listdir(tmp_path)


def test_half_precision_has_its_own_tolerance(tmp_path, tiny_sentence_transformer, make_adaptor):
    half = SentenceTransformer(
        tiny_sentence_transformer, device="cpu", model_kwargs={"dtype": torch.bfloat16}, local_files_only=True
    )
    exported = export_level(make_adaptor(), "d8", tmp_path / "out", base_model=half)
    assert 1e-5 < exported.max_difference < 0.04


def test_the_manifest_describes_repo_and_levels(tmp_path, base, make_adaptor):
    model = make_adaptor(base_model="me/base")
    exported = export_level(model, "d8", tmp_path / "out", base_model=base)
    found = Manifest.from_folder(tmp_path / "out")
    assert (found.model_type, found.this, found.inputs, found.base_model) == (
        "matryoshka_adaptor",
        "d8",
        "text",
        "me/base",
    )
    assert [(level.name, level.dim, level.cost) for level in found.levels] == [
        (name, dim, model.cost(name)) for name, dim in (("d4", 4), ("d8", 8), ("d32", 32))
    ]
    check_weights(found.repo, tmp_path / "out")
    assert found.repo.files == exported.files


def test_a_second_export_is_byte_identical(tmp_path, base, make_adaptor):
    for level, name in (("d8", "stock"), ("full", "full")):
        for number in (1, 2):
            export_level(make_adaptor(), level, tmp_path / str(number) / name, base_model=base)
        first, second = (
            {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
            for root in (tmp_path / "1" / name, tmp_path / "2" / name)
        )
        assert first == second


def test_the_full_repo_is_always_remote_code(tmp_path, base, make_adaptor):
    exported = export_level(make_adaptor(), "full", tmp_path / "out", base_model=base, format="stock")
    assert (exported.name, exported.form, exported.levels) == ("full", "remote_code", ["d4", "d8", "d32"])
    assert exported.reason == "it holds all levels in one, for which there is no stock class"


def test_a_full_disk_leaves_nothing(tmp_path, base, make_adaptor):
    model = make_adaptor()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The system refuses to let a file grow, as it does on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="cannot be written"):
            export_level(model, "d8", tmp_path / "out", base_model=base)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not os.listdir(tmp_path)


def test_other_models_are_refused(tmp_path, base, make_adaptor):
    with pytest.raises(ValueError, match="starts with a BertModel, which has no levels; make it nested"):
        export_level(base, None, tmp_path / "out")
    lora = get_nested_lora_model(make_adaptor(), LoraConfig(target_modules="all-linear"))
    with pytest.raises(ValueError, match="merge them first with model.merge_and_unload"):
        export_level(lora, None, tmp_path / "out")
    assert not os.listdir(tmp_path)


def test_a_merged_lora_is_exported(tmp_path, base, make_adaptor):
    lora = get_nested_lora_model(make_adaptor(), LoraConfig(target_modules="all-linear", init_lora_weights=False))
    merged = lora.merge_and_unload()
    export_level(merged, "d8", tmp_path / "out", base_model=base)
    loaded = SentenceTransformer(str(tmp_path / "out"), device="cpu", local_files_only=True)
    np.testing.assert_allclose(loaded.encode(TEXTS), expected(merged, base, "d8"), atol=1e-5)
