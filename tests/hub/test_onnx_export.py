"""ONNX exports of text models and of models on embeddings."""

import copy
import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch


pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
onnx_ir = pytest.importorskip("onnx_ir")

from sentence_transformers import SentenceTransformer  # noqa: E402
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling  # noqa: E402

from hf_matryoshka.hub import onnx_export, onnx_graph  # noqa: E402
from hf_matryoshka.hub.dense import dense_layers  # noqa: E402
from hf_matryoshka.hub.gate import ExportError  # noqa: E402
from hf_matryoshka.hub.onnx_check import difference, int8_loss, probe_texts  # noqa: E402
from hf_matryoshka.hub.onnx_export import export_onnx  # noqa: E402
from hf_matryoshka.hub.self_contained import append_modules  # noqa: E402
from hf_matryoshka.modeling.st_matryoshka_adaptor import MatryoshkaAdaptor  # noqa: E402


DIMS = [4, 8, 32]
TEXTS = ["a cat", "the large river in the city", "protein treats small fish " * 30, "bird"]

# Run with the folder of an export; prints the largest difference of each check.
SCRIPT = """
import json, sys
from pathlib import Path

sys.modules["hf_matryoshka"] = None

import numpy as np
from sentence_transformers import SentenceTransformer

root = Path(sys.argv[1])
expected = np.load(root / "expected.npz")
texts = list(expected["texts"])
report = {}


def check(name, model):
    for key, kwargs in {
        "d4": {"matryoshka_dim": 4},
        "d8": {"matryoshka_dim": 8, "batch_size": 1},
        "d32": {"matryoshka_dim": 32, "batch_size": 3},
        "default": {},
        "no prompt": {"prompt": ""},
    }.items():
        actual = model.encode(texts, **kwargs)
        same = actual.shape == expected[key].shape
        report[f"{name} {key}"] = float(np.abs(actual - expected[key]).max()) if same else "shape"
    similarity = model.similarity(expected["d4"], expected["d4"]).numpy()
    report[f"{name} similarity"] = float(np.abs(similarity - expected["similarity"]).max())


folder = str(root / "onnx")
model = SentenceTransformer(folder, device="cpu", trust_remote_code=True)
check("loaded", model)
for number in (1, 2):
    folder = str(root / f"saved{number}")
    model.save_pretrained(folder)
    model = SentenceTransformer(folder, device="cpu", trust_remote_code=True)
    check(f"saved {number} times", model)
settings = {"file_name": "model_int8.onnx", "provider": "CPUExecutionProvider"}
int8 = SentenceTransformer(str(root / "onnx"), device="cpu", trust_remote_code=True, model_kwargs=settings)
report["int8"] = float((1 - (int8.encode(texts) * expected["default"]).sum(1)).max())

sys.modules["onnxruntime"] = None
try:
    SentenceTransformer(folder, device="cpu", trust_remote_code=True)
except ImportError as error:
    report["without ONNX Runtime"] = str(error)
assert not any(name.startswith("hf_matryoshka.") for name in sys.modules)
print("REPORT" + json.dumps(report))
"""


@pytest.fixture(scope="module")
def model(base, make_adaptor):
    """A text model with several levels, whose default is not the largest, and a prompt that it uses by itself."""
    model = append_modules(base, [MatryoshkaAdaptor(make_adaptor("orthogonal", projection=True), matryoshka_dim=8)])
    model.default_prompt_name = "query"
    model.similarity_fn_name = "manhattan"
    return model


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return export_onnx(model, tmp_path_factory.mktemp("level") / "onnx", matryoshka_dims=DIMS)


@pytest.fixture
def no_trace(monkeypatch, exported):
    """What is "traced" is the graph of the other export: for tests of what happens around it."""
    monkeypatch.setattr(onnx_export, "trace", lambda graph: onnx_ir.load(exported.folder / "model.onnx"))


def load(exported, **kwargs):
    return SentenceTransformer(
        str(exported.folder), device="cpu", trust_remote_code=True, local_files_only=True, model_kwargs=kwargs
    )


def test_the_graph_computes_the_model_at_other_shapes_than_the_traced_one(exported, model):
    session = onnxruntime.InferenceSession(exported.folder / "model.onnx")
    assert {node.name: node.shape for node in session.get_inputs()} == dict.fromkeys(
        model.preprocess(["a"]).keys() - {"modality"}, ["batch", "sequence"]
    )
    (output,) = session.get_outputs()
    assert (output.name, output.shape) == ("sentence_embedding", ["batch", 32])
    for texts in (TEXTS, TEXTS[:1], TEXTS[2:3], ["a"] * 40):
        features = {name: value for name, value in model.preprocess(texts).items() if isinstance(value, torch.Tensor)}
        actual = session.run(None, {name: value.numpy() for name, value in features.items()})[0]
        with torch.no_grad():
            expected = model(features, matryoshka_dim=32)["sentence_embedding"]
        np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert 0 < exported.max_difference <= 1e-5


def test_int8_is_smaller_and_its_loss_is_measured(exported, model):
    sizes = {name: (exported.folder / name).stat().st_size for name in ("model.onnx", "model_int8.onnx")}
    assert exported.sizes == sizes
    assert exported.int8_size_ratio == sizes["model_int8.onnx"] / sizes["model.onnx"] < 0.7
    assert [loss.dim for loss in exported.int8] == DIMS
    assert exported.num_samples == len(set(probe_texts())) == 256
    int8 = load(exported, file_name="model_int8.onnx")
    for loss in exported.int8:
        actual, expected = (one.encode(probe_texts(), matryoshka_dim=loss.dim) for one in (int8, model))
        cosine = (actual * expected).sum(1)
        assert (loss.mean_cosine, loss.min_cosine) == pytest.approx((cosine.mean(), cosine.min()), abs=1e-6)
        assert 0.9 < loss.min_cosine <= loss.mean_cosine < 0.999999
        nearest = []
        for embeddings in (actual, expected):
            similarity = embeddings @ embeddings.T
            np.fill_diagonal(similarity, -9)
            nearest.append(np.argsort(-similarity, axis=1)[:, :10])
        kept = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*nearest, strict=True)])
        assert loss.neighbour_overlap == pytest.approx(kept, abs=0.01)


def test_int8_weights_have_a_scale_a_channel_and_seven_bits(exported):
    weights = onnx_ir.load(exported.folder / "model_int8.onnx").graph.initializers
    quantized = [name for name in weights if name.endswith("_quantized")]
    matrices = [name for name in quantized if "embeddings" not in name]
    # Four of the attention and two of the MLP in each of two layers, and the adaptor.
    assert len(matrices) == 13
    for name in matrices:
        values = weights[name].const_value.numpy()
        assert values.dtype == np.int8 and 50 < np.abs(values.astype(int)).max() <= 64
        assert weights[name.replace("_quantized", "_scale")].const_value.size == values.shape[1]


def test_nothing_says_where_it_was_made_and_a_second_export_is_equal(exported, model, tmp_path):
    # From a model that has embedded other texts in between.
    model.encode(TEXTS)
    again = export_onnx(model, tmp_path / "onnx", matryoshka_dims=DIMS)
    files = {path.name: path.read_bytes() for path in exported.folder.iterdir()}
    assert files == {path.name: path.read_bytes() for path in again.folder.iterdir()}
    assert list(tmp_path.iterdir()) == [tmp_path / "onnx"]
    assert {"model.onnx", "model_int8.onnx", "modules.json", "tokenizer.json", "st_matryoshka_onnx.py"} <= files.keys()
    for name in ("model.onnx", "model_int8.onnx", "tokenizer.json", "tokenizer_config.json"):
        for word in (b"site-packages", b".py", b"stack_trace", os.fsencode(os.getcwd()), os.fsencode(tmp_path.parent)):
            assert word not in files[name], (name, word)


def test_it_runs_where_this_package_is_not(exported, model):
    root = exported.folder.parent
    settings = {f"d{dim}": {"matryoshka_dim": dim} for dim in DIMS} | {
        "default": {},
        "no prompt": {"prompt": ""},
    }
    expected = {name: model.encode(TEXTS, **kwargs) for name, kwargs in settings.items()}
    assert expected["default"].shape == (4, 8)
    expected["similarity"] = model.similarity(expected["d4"], expected["d4"]).numpy()
    np.savez(root / "expected.npz", texts=np.array(TEXTS), **expected)
    (root / "script.py").write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_MODULES_CACHE": str(root / "modules"), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "script.py", str(root)], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout.rpartition("REPORT")[2])
    assert report.pop("without ONNX Runtime").endswith("run `pip install onnxruntime`")
    assert 1e-7 < report.pop("int8") < 0.1
    assert len(report) == 18
    assert not {name: value for name, value in report.items() if value == "shape" or not value <= 1e-5}
    assert (root / "saved2" / "model.onnx").read_bytes() == (exported.folder / "model.onnx").read_bytes()


def test_stock_modules_in_half_precision(base, make_adaptor, tmp_path):
    layers = [
        Dense(*reversed(layer.weight.shape), layer.bias is not None, layer.activation, layer.weight, layer.bias)
        for layer in dense_layers(make_adaptor("linear"), "d8")
    ]
    model = copy.deepcopy(append_modules(base, [*layers, Normalize()])).bfloat16()
    exported = export_onnx(model, tmp_path / "onnx", matryoshka_dims=[8], int8=False)
    assert model.dtype == torch.bfloat16
    assert (exported.int8, exported.int8_size_ratio) == ([], None)
    assert not (tmp_path / "onnx" / "model_int8.onnx").exists()
    embeddings = load(exported).encode(TEXTS, matryoshka_dim=8)
    np.testing.assert_allclose(embeddings, model.float().encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize("largest_file", [onnx_graph.MAX_GRAPH_BYTES, 100])
def test_an_adaptor_alone_is_a_graph_on_embeddings(make_adaptor, tmp_path, monkeypatch, largest_file):
    monkeypatch.setattr(onnx_graph, "MAX_GRAPH_BYTES", largest_file)
    adaptor = make_adaptor("mlp")
    exported = export_onnx(adaptor, tmp_path / "onnx", matryoshka_dims=DIMS)
    weights = ["model.onnx.data", "model_int8.onnx.data"] if largest_file == 100 else []
    assert sorted(path.name for path in exported.folder.iterdir()) == sorted(
        ["model.onnx", "model_int8.onnx", *weights]
    )
    assert sum(exported.sizes.values()) == sum(path.stat().st_size for path in exported.folder.iterdir())
    session = onnxruntime.InferenceSession(exported.folder / "model.onnx")
    assert [(node.name, node.shape) for node in session.get_inputs()] == [("embeddings", ["batch", 32])]
    vectors = np.random.default_rng(0).normal(size=(5, 32)).astype(np.float32)
    for count in (1, 5):
        (output,) = session.run(["sentence_embedding"], {"embeddings": vectors[:count]})
        for dim in DIMS:
            prefix = output[:, :dim] / np.linalg.norm(output[:, :dim], axis=1, keepdims=True)
            with torch.no_grad():
                expected = adaptor(torch.from_numpy(vectors[:count]), matryoshka_dim=dim).embeddings
            np.testing.assert_allclose(prefix, expected, atol=1e-5)


def test_a_wrong_graph_leaves_nothing_behind(no_trace, base, make_adaptor, tmp_path):
    other = append_modules(base, [MatryoshkaAdaptor(make_adaptor("linear"))])
    with pytest.raises(ExportError, match=r"differs from the model by .*, more than 1e-05; it was not written"):
        export_onnx(other, tmp_path / "onnx", matryoshka_dims=DIMS, int8=False)
    assert not any(tmp_path.iterdir())


def test_a_wrong_tokenizer_is_found(no_trace, model, tmp_path, monkeypatch):
    save = onnx_export._save_repo

    def save_shortened(model, folder, dims, default):
        model = copy.deepcopy(model)
        model.max_seq_length = 20
        save(model, folder, dims, default)

    monkeypatch.setattr(onnx_export, "_save_repo", save_shortened)
    with pytest.raises(ExportError, match="differs from the model"):
        export_onnx(model, tmp_path / "onnx", matryoshka_dims=DIMS, int8=False)
    assert not any(tmp_path.iterdir())


def test_an_export_that_does_not_load_is_refused(no_trace, model, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "_save_repo", lambda *args: None)
    with pytest.raises(ExportError, match="the ONNX export does not load back"):
        export_onnx(model, tmp_path / "onnx", matryoshka_dims=DIMS, int8=False)
    assert not any(tmp_path.iterdir())


def test_models_that_are_no_such_graph_are_refused(model, base, tmp_path, monkeypatch):
    def refused(match, model=model, dims=DIMS, error=ValueError, **kwargs):
        with pytest.raises(error, match=match):
            export_onnx(model, tmp_path / "onnx", matryoshka_dims=dims, **kwargs)

    refused("strictly increasing", dims=[8, 4])
    refused("width 8, which matryoshka_dims does not list: 4, 32", dims=[4, 32])
    refused("width 32, but matryoshka_dims ends at 64", base, [64])
    refused("samples has 3 entries.*give at least 12", samples=TEXTS[:3])
    refused("starts from a Transformer", SentenceTransformer(modules=[Normalize()], device="cpu"))
    raw = SentenceTransformer(modules=list(base.children())[:2], device="cpu")
    refused("do not have unit length; append a Normalize", raw)
    blind = SentenceTransformer(modules=[base[0], Pooling(32, include_prompt=False), Normalize()], device="cpu")
    refused("include_prompt=False", blind)
    refused("but BertModel takes input_ids; put it into a SentenceTransformer", base[0].model, [None])
    short = copy.deepcopy(base)
    short.truncate_dim = 8
    refused("truncate_dim=8", short)
    strange = copy.deepcopy(base)
    strange[0].processing_kwargs = {"text": {"padding": "max_length"}}
    refused("cannot keep the processing_kwargs", strange)
    assert not any(tmp_path.iterdir())
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "notes.txt").write_text("mine")
    refused("is not empty; name a new or empty folder", error=FileExistsError)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else True)
    refused(r'needs onnxscript; run `pip install "hf-matryoshka\[onnx\]"`', error=ImportError)


def test_what_is_not_a_number_is_infinitely_far_off():
    values = torch.tensor([[1.0, 0.0]])
    assert difference(values * torch.nan, values) == torch.inf
    with pytest.raises(ValueError, match="shape"):
        difference(values, values[:, :1])
    assert int8_loss(torch.eye(12), torch.eye(12), [12])[0].mean_cosine == 1
