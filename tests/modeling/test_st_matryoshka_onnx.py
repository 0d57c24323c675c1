"""An ONNX graph as a sentence-transformers module, on a graph of three nodes: the sum of the vectors of the tokens."""

import copy
import json
import pickle
import sys

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer


onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from hf_matryoshka.data.base_models import model_fingerprint  # noqa: E402
from hf_matryoshka.modeling.st_matryoshka_onnx import MatryoshkaOnnx  # noqa: E402


TEXTS = ["a cat", "the large river in the city", "protein"]


def save_graph(path, tokenizer, scale=1.0, external=False):
    table = np.random.default_rng(0).normal(size=(len(tokenizer), 8)).astype(np.float32) * scale
    nodes = [
        onnx.helper.make_node("Gather", ["table", "input_ids"], ["tokens"]),
        onnx.helper.make_node("Cast", ["attention_mask"], ["mask"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Einsum", ["mask", "tokens"], ["sentence_embedding"], equation="bs,bsd->bd"),
    ]
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask")
    ]
    output = onnx.helper.make_tensor_value_info("sentence_embedding", onnx.TensorProto.FLOAT, ["batch", 8])
    graph = onnx.helper.make_graph(nodes, "graph", inputs, [output], [onnx.numpy_helper.from_array(table, "table")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    external = (
        {"save_as_external_data": True, "location": f"{path.name}.data", "size_threshold": 0} if external else {}
    )
    onnx.save(model, path, **external)
    return table


@pytest.fixture(scope="module")
def tokenizer(tiny_sentence_transformer):
    return AutoTokenizer.from_pretrained(tiny_sentence_transformer)


@pytest.fixture(scope="module")
def table(tmp_path_factory, tokenizer):
    """A folder with `model.onnx`, and the vectors of its tokens."""
    folder = tmp_path_factory.mktemp("graph")
    return folder, save_graph(folder / "model.onnx", tokenizer)


@pytest.fixture
def make_model(table, tokenizer):
    def make(folder=table[0], file_name="model.onnx", **kwargs):
        module = MatryoshkaOnnx(folder / file_name, copy.deepcopy(tokenizer), [2, 4, 8], **kwargs)
        return SentenceTransformer(modules=[module], prompts={"query": "the gene "}, device="cpu")

    return make


def expected(table, tokenizer, texts, dim, length=64):
    vectors = np.stack([table[tokenizer(text)["input_ids"][:length]].sum(0)[:dim] for text in texts])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_runs_the_graph_and_cuts_its_output_to_a_unit_length_prefix(make_model, table, tokenizer):
    model = make_model(matryoshka_dim=4)
    for dim, kwargs in ((2, {"matryoshka_dim": 2}), (4, {}), (8, {"matryoshka_dim": 8, "batch_size": 1})):
        np.testing.assert_allclose(model.encode(TEXTS, **kwargs), expected(table[1], tokenizer, TEXTS, dim), atol=1e-6)
    assert model.get_embedding_dimension() == 4
    assert model.encode("a cat").shape == (4,)
    with pytest.raises(ValueError, match="matryoshka_dim 3 was not trained; choose one of 2, 4, 8"):
        model.encode(TEXTS, matryoshka_dim=3)


def test_prompts_and_text_length(make_model, table, tokenizer):
    model = make_model()
    prompted = expected(table[1], tokenizer, [f"the gene {text}" for text in TEXTS], 8)
    np.testing.assert_allclose(model.encode_query(TEXTS), prompted, atol=1e-6)
    short = model.encode(TEXTS, processing_kwargs={"text": {"max_length": 4}})
    assert model.max_seq_length == 64
    model.max_seq_length = 4
    np.testing.assert_array_equal(model.encode(TEXTS), short)
    tokens = model.preprocess(TEXTS)["input_ids"]
    assert tokens.shape == (3, 4)


def test_a_copy_and_a_pickle_start_their_own_session(make_model):
    model = make_model()
    embeddings = model.encode(TEXTS)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other[0].session is not model[0].session
        np.testing.assert_array_equal(other.encode(TEXTS), embeddings)


def test_different_graphs_have_different_fingerprints(make_model, tokenizer, tmp_path):
    prints = []
    for number, scale in enumerate((1.0, 1.0, 0.5)):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_graph(folder / "model.onnx", tokenizer, scale, external=True)
        prints.append(model_fingerprint(make_model(folder)))
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("external", [False, True])
def test_a_saved_module_keeps_the_graph_that_it_runs(make_model, tokenizer, tmp_path, external):
    save_graph(tmp_path / "model_int8.onnx", tokenizer, scale=0.5, external=external)
    model = make_model(tmp_path, "model_int8.onnx", matryoshka_dim=4)
    model.max_seq_length = 5
    folder = tmp_path / "saved"
    for _ in range(2):  # the second time over its own files
        model.save(str(folder), create_model_card=False)
        loaded = MatryoshkaOnnx.load(str(folder), local_files_only=True)
        assert (loaded.file_name, loaded.matryoshka_dims, loaded.matryoshka_dim) == ("model_int8.onnx", [2, 4, 8], 4)
        assert loaded.max_seq_length == 5
        again = SentenceTransformer(modules=[loaded], device="cpu")
        np.testing.assert_array_equal(again.encode(TEXTS), model.encode(TEXTS))
        model = again
    assert {path.name for path in folder.glob("*.py")} == {"levels.py", "st_matryoshka_onnx.py", "st_repo_code.py"}
    assert json.loads((folder / "sentence_onnx_config.json").read_text())["file_name"] == "model_int8.onnx"
    assert (folder / "model_int8.onnx.data").exists() == external


def test_what_runs_the_graph_is_chosen_at_loading(make_model, tokenizer, tmp_path):
    make_model().save(str(tmp_path), create_model_card=False)
    save_graph(tmp_path / "other.onnx", tokenizer, scale=-1.0)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    settings = {"file_name": "other.onnx", "provider": "CPUExecutionProvider", "session_options": options}
    modules = [MatryoshkaOnnx.load(str(tmp_path), model_kwargs=kwargs) for kwargs in (None, settings)]
    assert modules[1].session.get_session_options().intra_op_num_threads == 1
    embeddings = [SentenceTransformer(modules=[module], device="cpu").encode(TEXTS) for module in modules]
    np.testing.assert_allclose(embeddings[0], -embeddings[1], atol=1e-6)


def test_bad_choices_are_refused(make_model, tmp_path, monkeypatch):
    model = make_model()
    model.save(str(tmp_path), create_model_card=False)
    with pytest.raises(FileNotFoundError, match="holds no graph model_int8.onnx"):
        MatryoshkaOnnx.load(str(tmp_path), model_kwargs={"file_name": "model_int8.onnx"})
    with pytest.raises(ValueError, match="holds dtype, but an ONNX graph takes only file_name, provider"):
        MatryoshkaOnnx.load(str(tmp_path), model_kwargs={"dtype": "float16"})
    with pytest.raises(ValueError, match="provider 'Abacus' is not available.*CPUExecutionProvider"):
        MatryoshkaOnnx.load(str(tmp_path), model_kwargs={"provider": "Abacus"})
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="not installed; run `pip install onnxruntime`"):
        MatryoshkaOnnx.load(str(tmp_path))
