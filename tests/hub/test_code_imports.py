"""What the code in an export imports."""

import ast
import importlib.util
import os
import sys
from types import SimpleNamespace

import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from hf_matryoshka import mamba_sentence_encoder, nest_sentence_encoder
from hf_matryoshka.hub import onnx_export, onnx_stream
from hf_matryoshka.hub.code_imports import check_imports
from hf_matryoshka.hub.export import export_level
from hf_matryoshka.hub.export_family import export_family
from hf_matryoshka.hub.level_exporter import LevelExporter
from hf_matryoshka.surgery.combine import combine

from ..modeling import delta_models, funnel_models, gpt_models, mamba_models, test_fractalformer
from ..surgery.test_combine import parts


ALL = {"torch", "transformers", "huggingface_hub", "safetensors"}
KINDS = (
    "adaptor",
    "adaptor with base",
    "funnel",
    "funnel with base",
    "DeltaBertForMaskedLM",
    "DeltaModernBertForMaskedLM",
    "nested encoder",
    "gpt",
    "combined",
    "fractal",
    "mamba",
    "mamba encoder",
)
needs_onnx = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")), reason="no onnx"
)


@pytest.fixture
def make_kind(base, make_adaptor, tiny_sentence_transformer):
    """Builds a model by its kind, and what its export needs besides."""

    def make(kind):
        kind, *with_base = kind.split(" with ")
        options = {"base_model": base} if with_base else {}
        if kind.startswith("Delta"):
            return delta_models.make(kind), options
        if kind == "mamba encoder":
            tokenizer = AutoTokenizer.from_pretrained(tiny_sentence_transformer)
            return mamba_sentence_encoder(mamba_models.make(), tokenizer), options
        makers = {
            "adaptor": make_adaptor,
            "funnel": funnel_models.make,
            "nested encoder": lambda: nest_sentence_encoder(base, [[0.5, 2, 1], [1.0, 2, 2]], [8]),
            "gpt": gpt_models.make,
            "combined": lambda: combine(parts(2)),
            "fractal": test_fractalformer.make,
            "mamba": mamba_models.make,
        }
        return makers[kind](), options

    return make


def imported(file):
    """Packages that a file imports anywhere by a statement, and those that it names to import later."""
    statements, calls = set(), set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            statements |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and (file.parent / f"{node.module}.py").is_file(), file
        elif isinstance(node, ast.ImportFrom):
            statements.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
            calls.add(node.args[0].value.split(".")[0])
    return statements - sys.stdlib_module_names, calls


@pytest.mark.parametrize("kind", KINDS)
def test_exported_code_imports_nothing_else(kind, make_kind, tmp_path):
    model, options = make_kind(kind)
    export_level(model, "full", tmp_path / "out", **options)
    files = sorted((tmp_path / "out").rglob("*.py"))
    assert any(file.name.startswith("modeling_") for file in files)
    for file in files:
        statements, calls = imported(file)
        own = {"sentence_transformers"} if file.name.startswith("st_") else set()
        assert statements <= ALL | own, file
        assert calls <= ({"mamba_ssm"} if file.name == "mamba_kernels.py" else set()), file


@needs_onnx
def test_code_beside_a_graph_imports_nothing_else(base, tmp_path):
    onnx_export.export_onnx(base, tmp_path / "onnx", matryoshka_dims=[8, 32], int8=False)
    found = {file.name: imported(file) for file in (tmp_path / "onnx").glob("*.py")}
    assert found.pop("st_matryoshka_onnx.py") == ({"sentence_transformers", "torch", "transformers"}, {"onnxruntime"})
    assert found and all(statements <= ALL and not calls for statements, calls in found.values())


def test_the_runner_of_a_streaming_graph_imports_nothing_else():
    assert imported(onnx_stream.CODE) == ({"numpy"}, {"onnxruntime"})


FINE = """
from __future__ import annotations
import os.path, importlib.util
import torch.nn.functional as F
from torch import nn
from transformers.utils import logging
from huggingface_hub.dataclasses import strict
from .beside import x
from . import beside
def f():
    import xml.dom
    importlib.import_module("collections.abc"), __import__("math"), importlib.import_module(".beside", __package__)
    importlib.util.find_spec("requests")
"""


def test_what_may_be_imported(tmp_path, caplog):
    (tmp_path / "beside.py").write_text("x = 1\n")
    # With the name of a file of this package: there any other import is an error.
    (tmp_path / "levels.py").write_text(FINE)
    # Files of others may say how they are encoded.
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nx = '\xe9'\n")
    (tmp_path / "1_Custom").mkdir()
    (tmp_path / "1_Custom" / "st_own.py").write_text("from sentence_transformers import models\n")
    (tmp_path / "mamba_kernels.py").write_text("import importlib\nimportlib.import_module('mamba_ssm.ops')\n")
    check_imports(tmp_path)
    assert not caplog.records


@pytest.mark.parametrize(
    "code, what",
    [
        ("import requests", "imports requests in line 1; code in an export may import torch, transformers, hugg"),
        ("import os, requests.adapters as a", "imports requests.adapters in line 1"),
        ("from requests import get", "imports requests in line 1"),
        ("import torchvision", "imports torchvision in line 1"),
        ("import hf_matryoshka", "imports hf_matryoshka in line 1"),
        ("from hf_matryoshka.modeling import levels", "imports hf_matryoshka.modeling in line 1"),
        ("import numpy", "imports numpy in line 1"),
        ("import sentence_transformers", "imports sentence_transformers in line 1"),
        ("def f():\n    import requests", "imports requests in line 2"),
        ("try:\n    import einops\nexcept ImportError:\n    einops = None", "imports einops in line 2"),
        ("import importlib as i\ni.import_module('requests.x')", r"imports requests.x in line 2"),
        ("from importlib import import_module as load\nload(name='requests')", "imports requests in line 2"),
        ("__import__('requests')", "imports requests in line 1"),
        ("__import__('req' + 'uests')", "imports a module in line 1 whose name only a run would tell"),
        ("import importlib\nimportlib.import_module(f'{x}')", "imports a module in line 2 whose name only a run"),
        ("import onnxruntime", "imports onnxruntime in line 1"),
        ("import importlib\nimportlib.import_module('onnxruntime')", "imports onnxruntime in line 2"),
        ("from .absent import x", "imports .absent in line 1, but no such file lies beside it"),
        ("from . import absent", "imports .absent in line 1, but no such file lies beside it"),
        ("from .. import code", "imports ..code in line 1, but no such file lies beside it"),
        ("from ..code import x", "imports ..code in line 1, but no such file lies beside it"),
        ("from .a.b import x", "imports .a.b in line 1, but no such file lies beside it"),
        ("import", "is no Python that can be read: invalid syntax"),
        ("x = '\0'", "is no Python that can be read: "),
        ("-" * 100_000 + "1", "is no Python that can be read: "),
    ],
)
@pytest.mark.parametrize("place", ["levels.py", "2_Own/levels.py"])
def test_what_may_not_be_imported(tmp_path, code, what, place):
    folder = tmp_path / "d8"
    (folder / place).parent.mkdir(parents=True)
    (folder / place).write_text(code)
    with pytest.raises(ValueError, match=f"^the export d8 brings the file {place}, which {what}") as caught:
        check_imports(folder)
    assert str(caught.value).endswith("; it was not written") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, package", [("mamba_kernels.py", "mamba_ssm"), ("st_matryoshka_onnx.py", "onnxruntime")]
)
def test_what_need_not_be_installed_is_loaded_by_name_only(tmp_path, name, package):
    """transformers refuses a file with a statement whose package is missing, though the model works without."""
    (tmp_path / name).write_text(f"import importlib\nimportlib.import_module('{package}')\n")
    check_imports(tmp_path)
    (tmp_path / name).write_text(f"def f():\n    import {package}\n")
    with pytest.raises(ValueError, match=f"brings the file {name}, which imports {package} in line 2"):
        check_imports(tmp_path)


@pytest.fixture
def plant(monkeypatch):
    """`plant(name, code)`: from then on every export is written with this code at the end of that file."""

    def add(name, code):
        writer = LevelExporter.writer

        def planted(self, form):
            write = writer(self, form)

            def write_and_plant(folder):
                write(folder)
                with open(folder / name, "a", encoding="utf-8") as file:
                    file.write(code)

            return write_and_plant

        monkeypatch.setattr(LevelExporter, "writer", planted)

    return add


def test_an_export_with_other_imports_is_refused_before_it_runs(tmp_path, make_adaptor, plant):
    ran = tmp_path / "ran"
    plant("modeling_matryoshka_adaptor.py", f"\nimport os.path\nopen({str(ran)!r}, 'w').close()\n")
    export_level(make_adaptor(), "d8", tmp_path / "fine")
    assert ran.exists()  # by the comparison
    ran.unlink()
    plant("modeling_matryoshka_adaptor.py", "\nimport requests\n")
    with pytest.raises(
        ValueError, match="the export out brings the file modeling_matryoshka_adaptor.py, which imports"
    ):
        export_level(make_adaptor(), "d8", tmp_path / "out")
    with pytest.raises(
        ValueError, match="the export d4 brings the file modeling_matryoshka_adaptor.py, which imports"
    ):
        export_family(make_adaptor(), tmp_path / "family")
    assert os.listdir(tmp_path) == ["fine"]


def test_a_stock_export_is_read_too(tmp_path, base, make_adaptor, plant):
    plant("levels.py", "import requests\n")
    with pytest.raises(ValueError, match="the export d8 brings the file levels.py, which imports requests in line 1"):
        export_level(make_adaptor(), "d8", tmp_path / "d8", base_model=base, format="stock")
    assert os.listdir(tmp_path) == []


OWN_MODULE = """
from sentence_transformers.base.modules import Module
from .own_scale import SCALE


class Own(Module):
    config_keys = []

    def forward(self, features):
        features["sentence_embedding"] = features["sentence_embedding"] * SCALE
        return features

    def get_embedding_dimension(self):
        return 32

    def save(self, output_path, *args, **kwargs):
        pass

    @classmethod
    def load(cls, *args, **kwargs):
        return cls()
"""


@pytest.mark.parametrize("format", ["stock", "remote_code"])
def test_code_of_a_base_model_may_need_more_and_that_is_said(
    tmp_path, caplog, tiny_sentence_transformer, make_adaptor, format
):
    def base_with(name, scale):
        folder = tmp_path / name
        SentenceTransformer(tiny_sentence_transformer, device="cpu", local_files_only=True).save(str(folder))
        (folder / "3_Own").mkdir()
        (folder / "modules.json").write_text(
            (folder / "modules.json").read_text().rstrip().removesuffix("]")
            + ', {"idx": 3, "name": "3", "path": "3_Own", "type": "own.Own"}]'
        )
        (folder / "own.py").write_text(OWN_MODULE)
        (folder / "own_scale.py").write_text(scale)
        return SentenceTransformer(str(folder), device="cpu", trust_remote_code=True, local_files_only=True)

    model, out = make_adaptor(), tmp_path / "out"
    exported = export_level(model, "d8", out, base_model=base_with("fine", "SCALE = 1.5\n"), format=format)
    assert exported.form == format and (out / "3_Own" / "own_scale.py").is_file()
    assert not caplog.records
    code = "import importlib\nimport numpy\nSCALE = float(numpy.float32(1.5))\n"
    code += "load = lambda name: importlib.import_module(name)\n"
    export_level(model, "d8", tmp_path / "new", base_model=base_with("other", code), format=format)
    said = "the export new brings the file 3_Own/own_scale.py, which imports numpy in line 2: who loads it needs that"
    assert said in caplog.messages


@needs_onnx
def test_code_beside_a_graph_is_read_before_it_runs(tmp_path, base, monkeypatch):
    save = onnx_export.save_self_contained

    def save_and_plant(model, folder):
        save(model, folder)
        with open(folder / "st_matryoshka_onnx.py", "a", encoding="utf-8") as file:
            file.write("\nimport requests\nraise AssertionError('it ran')\n")

    monkeypatch.setattr(onnx_export, "save_self_contained", save_and_plant)
    with pytest.raises(ValueError, match="the export onnx brings the file st_matryoshka_onnx.py, which imports requ"):
        onnx_export.export_onnx(base, tmp_path / "onnx", matryoshka_dims=[8, 32], int8=False)
    assert os.listdir(tmp_path) == []


@needs_onnx
def test_the_runner_of_a_streaming_graph_is_read_too(tmp_path, monkeypatch):
    (tmp_path / "mamba_onnx_stream.py").write_text("import numpy, requests\n")
    monkeypatch.setattr(onnx_stream, "CODE", tmp_path / "mamba_onnx_stream.py")
    # The graph itself takes minutes.
    monkeypatch.setattr(onnx_stream, "trace", lambda graph: SimpleNamespace(metadata_props={}))
    monkeypatch.setattr(onnx_stream, "save_graph", lambda program, path: path.write_bytes(b"graph"))
    monkeypatch.setattr(onnx_stream, "OnnxMambaStream", lambda path: None)
    monkeypatch.setattr(onnx_stream, "_stream_difference", lambda stream, graph: 0.0)
    with pytest.raises(ValueError, match="the file mamba_onnx_stream.py, which imports requests"):
        onnx_stream.export_onnx_stream(mamba_models.make(direction="causal"), tmp_path / "onnx")
    assert os.listdir(tmp_path / "onnx") == []
