"""What a folder from somebody else cannot do: run code, read or push files that are not its own, learn a token."""

import ast
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hf_matryoshka import DeltaBertModel, MatryoshkaAdaptorConfig, MatryoshkaAdaptorModel
from hf_matryoshka.hub.export_family import export_family
from hf_matryoshka.hub.family import load_family
from hf_matryoshka.hub.inside import check_inside
from hf_matryoshka.hub.manifest import Manifest
from hf_matryoshka.hub.push import push_family
from hf_matryoshka.hub.trained_folder import load_trained_model
from hf_matryoshka.modeling.level_files import fetch_level_index, indexed_files
from hf_matryoshka.modeling.st_matryoshka_onnx import MatryoshkaOnnx
from hf_matryoshka.surgery.nest_encoder import nest_sentence_encoder
from hf_matryoshka.trainers.adaptor_arguments import AdaptorTrainingArguments


ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for room in ("hf_matryoshka", "modeling", "trainers") for path in (ROOT / room).rglob("*.py"))
OUTSIDE = ["../x", "a/../../x", "/etc/passwd", "..\\x", "C:\\x", "\\\\server\\x", "a\0b"]


def test_no_code_unpickles_or_evaluates():
    """`np.load` and `torch.load` only as they refuse pickles; everything else that runs what it reads not at all."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in names:
                assert name.split(".")[0] not in ("pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"), path
            if not isinstance(node, ast.Call):
                continue
            called, given = ast.unparse(node.func), {key.arg: ast.unparse(key.value) for key in node.keywords}
            assert called not in ("eval", "exec", "compile", "os.system", "yaml.load", "pd.read_pickle"), path
            assert given.get("shell") != "True" and given.get("allow_pickle") in (None, "False"), path
            if called in ("np.load", "numpy.load"):
                assert given["allow_pickle"] == "False", path
            if called == "torch.load":
                assert given["weights_only"] == "True", path


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_out(name, tmp_path):
    with pytest.raises(ValueError, match="outside of it; nothing was read"):
        check_inside(tmp_path, ["a", name])
    check_inside(tmp_path, ["", ".", "a", "a/b.safetensors", "1_Pooling", "..a"])


class Attack:
    """Unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def adaptor():
    return MatryoshkaAdaptorModel(MatryoshkaAdaptorConfig(embedding_dim=8, matryoshka_dims=[4, 8])).eval()


def test_pickled_weights_and_vectors_are_not_run(adaptor, tmp_path):
    from hf_matryoshka.data.vectors import load_vectors

    adaptor.config.save_pretrained(tmp_path)
    torch.save({"weight": Attack(tmp_path / "ran")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(Exception, match="pickle|Weights only|weights_only"):
        MatryoshkaAdaptorModel.from_pretrained(tmp_path)
    np.save(tmp_path / "x.npy", np.array([Attack(tmp_path / "ran")], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="not a plain .npy array"):
        load_vectors(tmp_path / "x.npy")
    assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def encoder(tiny_sentence_transformer):
    return nest_sentence_encoder(tiny_sentence_transformer, [[0.5, 2, 1], [1.0, 2, 2]], [8])


def test_a_sentence_encoder_runs_no_code_of_its_folder(encoder, tmp_path):
    """Also not by way of the encoder's own config, whose `auto_map` names the code that every save copies."""
    encoder.save(str(tmp_path))
    for file in tmp_path.rglob("*.py"):
        file.write_text("raise AssertionError('code of the folder ran')\n", encoding="utf-8")
    loaded = load_trained_model(tmp_path).model
    assert isinstance(loaded[0].model, DeltaBertModel) and loaded.prompts == encoder.prompts
    texts = ["a cat", "the large river"]
    np.testing.assert_allclose(loaded.encode(texts), encoder.encode(texts), atol=1e-6)
    modules = json.loads((tmp_path / "modules.json").read_text())
    package = "hf_matryoshka.modeling"
    refused = ["x.Y", f"{package}.a/b--x.Y", f"{package}.x--st.Y", "os.path", f"{package}x.Y", 3]
    for kind in refused:
        (tmp_path / "modules.json").write_text(json.dumps([{**modules[0], "type": kind}]))
        with pytest.raises(ValueError, match="brings the code of|is no list of modules"):
            load_trained_model(tmp_path)
    for place in OUTSIDE:
        (tmp_path / "modules.json").write_text(json.dumps([{**modules[0], "path": place}]))
        with pytest.raises(ValueError, match="outside of it"):
            load_trained_model(tmp_path)


@pytest.fixture
def family(adaptor, tmp_path):
    return export_family(adaptor, tmp_path / "family")


def test_exported_code_imports_nothing_else(family, encoder, tmp_path):
    encoder.save(str(tmp_path / "encoder"))
    allowed = {"torch", "transformers", "huggingface_hub", "safetensors", *sys.stdlib_module_names}
    for folder in (family.full.folder, tmp_path / "encoder"):
        files = list(folder.rglob("*.py"))
        assert files
        for file in files:
            own = {"sentence_transformers"} if file.name.startswith("st_") else set()
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.level:
                    assert node.level == 1 and (file.parent / f"{node.module}.py").is_file(), file
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module]
                assert {name.split(".")[0] for name in names} <= allowed | own, file


LOCATIONS = [
    "../..",
    "../../secret",
    "../a/b",
    "/etc",
    "..\\..\\x",
    "../",
    "",
    "../a\0",
    "a/b/c",
    "~/x",
    "file:///etc",
]


def test_a_manifest_names_only_repos_beside_it(family):
    manifest = Manifest.from_folder(family.full.folder)
    for location in LOCATIONS:
        repos = [replace(repo, location=location) if repo.name == "d4" else repo for repo in manifest.repos]
        replace(manifest, repos=repos).write(family.full.folder)
        with pytest.raises(ValueError, match="the repos of a family lie side by side"):
            load_family(family.folder)


def test_nothing_outside_of_a_repo_is_pushed(family, tmp_path, hub, monkeypatch):
    (tmp_path / "secret").write_text("secret")
    (family.full.folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="is a link to .*secret, outside of"):
        push_family(load_family(family.folder), "me/x")
    (family.full.folder / "link").unlink()
    # What a downloaded repo says: ids, one of which is also a folder here.
    manifest = Manifest.from_folder(family.full.folder)
    repos = [replace(repo, location=f"me/{repo.name}") for repo in manifest.repos]
    replace(manifest, repos=repos).write(family.full.folder)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me" / "d4").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="a push needs the folders of all"):
        push_family(load_family(family.full.folder), "me/x")
    assert hub.repos() == []


@pytest.mark.parametrize("name", [*OUTSIDE, "", ".", "..", "config.json", "a/b.safetensors", 3])
def test_an_index_names_only_weights_beside_it(adaptor, tmp_path, name):
    adaptor.save_pretrained(tmp_path, shard_by_level=True)
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["x"] = name
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match="is damaged"):
        fetch_level_index(str(tmp_path))
    assert all(re.fullmatch(r"model-d\d\.safetensors", listed) for listed in indexed_files(tmp_path)[0])
    path.write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(ValueError, match="no safetensors file beside it"):
        MatryoshkaAdaptorModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", [*OUTSIDE, "config.json", "a/model.onnx"])
def test_the_graph_of_an_onnx_repo_lies_in_it(tmp_path, name):
    config = {"file_name": name, "matryoshka_dims": [4]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / MatryoshkaOnnx.config_file_name).write_text(json.dumps(config))
    with pytest.raises(ValueError, match="must be the name of an .onnx file"):
        MatryoshkaOnnx.load(str(tmp_path))


def test_a_token_is_no_training_argument(tmp_path):
    """It would lie in the report and in the checkpoints of the run."""
    with pytest.raises(ValueError, match="hub_token would be written into the files") as error:
        AdaptorTrainingArguments(output_dir=str(tmp_path), hub_token="hf_secret")
    assert "hf_secret" not in str(error.value)
