"""ONNX graphs of the Matryoshka Mamba encoder: of whole texts, of texts that arrive in parts, and in int8."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch


pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
onnx_ir = pytest.importorskip("onnx_ir")

from sentence_transformers import SentenceTransformer  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

from hf_matryoshka import export_level, mamba_sentence_encoder  # noqa: E402
from hf_matryoshka.hub.cards import UNKNOWN_MODEL_ID  # noqa: E402
from hf_matryoshka.hub.mamba_exporter import MambaEncoderExporter  # noqa: E402
from hf_matryoshka.hub.mamba_onnx_stream import OnnxMambaStream  # noqa: E402
from hf_matryoshka.hub.onnx_export import export_token_onnx  # noqa: E402
from hf_matryoshka.hub.onnx_graph import quantize  # noqa: E402
from hf_matryoshka.hub.onnx_stream import export_onnx_stream  # noqa: E402

from ..modeling import mamba_models  # noqa: E402


DIMS = [8, 16, 48]
LEVEL = "w0.5"
# More than the 16 tokens of a segment, and than the 8 of a chunk.
TEXTS = ["a cat", "the large river in the city of the small fish", "", "protein " * 70]

# Run in the folder of the graphs, without torch and this package; prints an embedding of three parts.
SCRIPT = """
import json, sys

for name in ("torch", "transformers", "hf_matryoshka"):
    sys.modules[name] = None

from mamba_onnx_stream import OnnxMambaStream

stream = OnnxMambaStream("model_stream.onnx")
state = stream.new_state(1)
for part in json.loads(sys.argv[1]):
    state = stream.update(state, [part])
print(json.dumps(stream.embed(state, 16).tolist()))
"""


@pytest.fixture(scope="module")
def encoder(tiny_sentence_transformer):
    return mamba_sentence_encoder(mamba_models.make(), AutoTokenizer.from_pretrained(tiny_sentence_transformer))


@pytest.fixture(scope="module")
def model(encoder):
    return encoder[0].model


@pytest.fixture(scope="module")
def exported(encoder, tmp_path_factory):
    """A repo with all graphs of a causal encoder."""
    folder = tmp_path_factory.mktemp("mamba") / "repo"
    export_level(encoder, LEVEL, folder, onnx=True)
    return folder


@pytest.fixture(scope="module")
def block_model():
    return mamba_models.make(direction="block_bidirectional", num_hidden_layers=1)


@pytest.fixture(scope="module")
def block_exported(block_model, tmp_path_factory):
    """The graphs of an encoder by itself that cannot be streamed token by token."""
    return export_token_onnx(block_model, tmp_path_factory.mktemp("blocks") / "onnx")


@pytest.fixture(scope="module")
def stream(exported):
    return OnnxMambaStream(exported / "onnx" / "model_stream.onnx")


def session_of(graph):
    return onnxruntime.InferenceSession(str(graph))


def shapes_of(values):
    return {value.name: value.shape for value in values}


def run(session, ids, mask):
    return session.run(["sentence_embedding"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0]


def prefix(embeddings, dim):
    return embeddings[:, :dim] / np.linalg.norm(embeddings[:, :dim], axis=1, keepdims=True)


def batches():
    """Texts of one token, of many, with padding on either side, and of several segments."""
    for batch, length in ((1, 1), (1, 9), (2, 16), (4, 70)):
        ids = mamba_models.tokens(batch, length)
        yield ids, torch.ones_like(ids)
    rows = [mamba_models.tokens(1, length)[0] for length in (3, 40, 17, 1)]
    for left in (False, True):
        yield mamba_models.padded(rows, 43, left)


def cosines(actual, expected):
    return (actual * expected).sum(1) / np.linalg.norm(actual, axis=1) / np.linalg.norm(expected, axis=1)


def check_graph(session, model, **kwargs):
    for ids, mask in batches():
        found = run(session, ids, mask)
        with torch.no_grad():
            for dim in DIMS:
                expected = model(ids, mask, matryoshka_dim=dim, **kwargs).embeddings
                np.testing.assert_allclose(prefix(found, dim), expected, atol=1e-5)


def test_the_graph_computes_the_model_at_any_shape_and_dimension(exported, model):
    session = session_of(exported / "onnx" / "model.onnx")
    assert shapes_of(session.get_inputs()) == dict.fromkeys(["input_ids", "attention_mask"], ["batch", "sequence"])
    assert shapes_of(session.get_outputs()) == {"sentence_embedding": ["batch", 48]}
    check_graph(session, model, level=LEVEL)


def test_sentence_transformers_runs_the_graph(exported, encoder):
    loaded = SentenceTransformer(str(exported / "onnx"), device="cpu", trust_remote_code=True)
    for dim in DIMS:
        expected = encoder.encode(TEXTS, level=LEVEL, matryoshka_dim=dim)
        np.testing.assert_allclose(loaded.encode(TEXTS, matryoshka_dim=dim), expected, atol=1e-5)


def test_an_encoder_by_itself_whose_tokens_see_ahead(block_exported, block_model):
    check_graph(session_of(block_exported.folder / "model.onnx"), block_model)
    assert 0 < block_exported.max_difference <= 1e-5 and block_exported.num_samples == 12 + 64
    assert sorted(path.name for path in block_exported.folder.iterdir()) == ["model.onnx", "model_int8.onnx"]


def test_the_blocks_as_a_stock_model(tmp_path):
    model = mamba_models.make(intermediate_size=0, num_hidden_layers=1)
    export_level(model, "w1.0", tmp_path / "stock", format="stock", onnx=True)
    assert sorted(path.name for path in (tmp_path / "stock" / "onnx").iterdir()) == ["model.onnx", "model_int8.onnx"]
    session = session_of(tmp_path / "stock" / "onnx" / "model.onnx")
    ids, mask = mamba_models.padded([mamba_models.tokens(1, length)[0] for length in (3, 40)], 43)
    (hidden,) = session.run(["last_hidden_state"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    with torch.no_grad():
        expected = model(ids, mask).last_hidden_state
    np.testing.assert_allclose(hidden[mask.bool()], expected[mask.bool()], atol=1e-5)


@pytest.mark.parametrize("left", [False, True])
def test_a_text_in_three_parts_is_the_whole_text(stream, model, left):
    """Of uneven lengths: one text ends early, one has nothing in the first part, one part is more than a segment."""
    whole = [mamba_models.tokens(1, length)[0] for length in (60, 4, 33)]
    state, states = stream.new_state(3), []
    for lengths in ((1, 3, 0), (40, 0, 30), (19, 1, 3)):
        starts = [int(start) for start in state.lengths]
        parts = [row[start : start + length] for row, start, length in zip(whole, starts, lengths, strict=True)]
        ids, mask = mamba_models.padded(parts, max(lengths) + 2, left)
        kept = {name: tensor.copy() for name, tensor in state.tensors.items()}
        states.append(state)
        state = stream.update(state, ids.numpy(), mask.numpy())
        # A state is never changed.
        assert all(np.array_equal(kept[name], states[-1].tensors[name]) for name in kept)
    assert state.lengths.tolist() == [60, 4, 33]
    ids, mask = mamba_models.padded(whole, 60)
    with torch.no_grad():
        for dim in DIMS:
            expected = model(ids, mask, level=LEVEL, matryoshka_dim=dim).embeddings
            np.testing.assert_allclose(stream.embed(state, dim), expected, atol=1e-5)
    after = model.update(model.new_state(3, LEVEL), ids, mask)
    for name in ("conv", "ssm"):
        expected = torch.stack([getattr(block, name) for block in after.blocks])
        np.testing.assert_allclose(state.tensors[name], expected, atol=1e-5)
    np.testing.assert_allclose(state.tensors["peak"], after.pooled.peak, atol=1e-5)
    # A text goes on from an earlier state in another way.
    other = stream.update(states[1], whole[1][None, :2].expand(3, -1).numpy())
    assert not np.allclose(stream.embed(other), stream.embed(states[2]))


def test_states_are_small_tensors_of_the_shapes_that_the_graph_names(stream):
    state = stream.new_state(2)
    assert {name: tensor.shape for name, tensor in state.tensors.items()} == {
        "conv": (2, 2, 3, 4 * 8 + 16),
        "ssm": (2, 2, 4, 8, 8),
        "peak": (2, 3),
        "total": (2, 3),
        "weighted": (2, 3, 32),
    }
    assert not stream.embed(state).any() and stream.embed(state, 8).shape == (2, 8)
    assert state.nbytes == sum(tensor.nbytes for tensor in state.tensors.values())
    assert (stream.matryoshka_dims, stream.segment_length) == (DIMS, 16)
    nothing = stream.update(state, np.ones((2, 3)), np.zeros((2, 3)))
    assert not stream.embed(nothing).any() and not nothing.lengths.any()


def test_streaming_without_torch(exported, model):
    ids = mamba_models.tokens(1, 30)
    parts = json.dumps([ids[0, :5].tolist(), ids[0, 5:6].tolist(), ids[0, 6:].tolist()])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, parts],
        cwd=exported / "onnx",
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    with torch.no_grad():
        expected = model(ids, level=LEVEL, matryoshka_dim=16).embeddings
    np.testing.assert_allclose(json.loads(done.stdout), expected, atol=1e-5)


def test_wrong_calls_of_a_stream_are_refused(stream, exported, block_model, tmp_path):
    state = stream.new_state(2)
    with pytest.raises(ValueError, match=r"that of 2 texts, but input_ids have the shape \(3, 4\)"):
        stream.update(state, np.ones((3, 4)))
    with pytest.raises(ValueError, match="matryoshka_dim 9 was not trained; choose one of 8, 16, 48"):
        stream.embed(state, 9)
    state.tensors["ssm"] = state.tensors["ssm"][:, :, :1]
    with pytest.raises(ValueError, match=r"that of another graph: its ssm has the shape \(2, 2, 1, 8, 8\)"):
        stream.update(state, np.ones((2, 4)))
    with pytest.raises(ValueError, match="takes no states; give the file model_stream.onnx"):
        OnnxMambaStream(exported / "onnx" / "model.onnx")
    with pytest.raises(ValueError, match="needs direction 'causal', but the model has 'block_bidirectional'"):
        export_onnx_stream(block_model, tmp_path / "onnx")
    assert not any(tmp_path.iterdir())


def test_int8_is_smaller_and_close(exported, block_exported, model, block_model):
    for folder, torch_model, kwargs in (
        (exported / "onnx", model, {"level": LEVEL}),
        (block_exported.folder, block_model, {}),
    ):
        sizes = [(folder / name).stat().st_size for name in ("model_int8.onnx", "model.onnx")]
        # Most of such a small graph are its nodes.
        assert sizes[0] < 0.85 * sizes[1]
        session = session_of(folder / "model_int8.onnx")
        for ids, mask in batches():
            with torch.no_grad():
                expected = torch_model(ids, mask, **kwargs).embeddings.numpy()
            found = run(session, ids, mask)
            assert 0.95 < cosines(found, expected).min() <= cosines(found, expected).max() < 0.9999999


def test_int8_are_the_matrices_and_the_table_but_not_the_scan(exported, model):
    graph = onnx_ir.load(exported / "onnx" / "model_int8.onnx").graph
    weights = {name: value.const_value.numpy() for name, value in graph.initializers.items()}
    quantized = {name: values for name, values in weights.items() if values.dtype == np.int8 and values.ndim == 2}
    # Of each block z, x, B and C, dt, out, gate and up, down; of the head three projections; the tokens.
    assert len(quantized) == 2 * 7 + 3 + 1
    assert not [name for name, values in weights.items() if values.dtype == np.float32 and values.size > 1000]
    # In the scan of each block five, in the pooling of each band two.
    assert sum(node.op_type == "MatMul" for node in graph.all_nodes()) == 2 * 5 + 3 * 2
    (table,) = (name for name in quantized if "embeddings" in name)
    scales = weights[table.replace("_quantized", "_scale")]
    expected = model.embeddings.weight.detach().numpy()
    assert scales.shape == (len(expected), 1)
    assert (np.abs(quantized[table] * scales - expected) <= scales / 2 + 1e-7).all()


def test_large_weights_that_the_exporter_left_transposed_are_quantized():
    """It transposes small ones itself, those of the tiny models among them."""
    rng = np.random.default_rng(0)
    weight = onnx_ir.val("weight", const_value=onnx_ir.tensor(rng.normal(size=(6, 4)).astype(np.float32)))
    tokens = onnx_ir.val("tokens", onnx_ir.DataType.FLOAT, ["batch", 4])
    turned = onnx_ir.node("Transpose", [weight], {"perm": [1, 0]}, name="turned")
    product = onnx_ir.node("MatMul", [tokens, turned.outputs[0]], name="product")
    product.outputs[0].name, product.outputs[0].type = "found", onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    graph = onnx_ir.Graph(
        [tokens], product.outputs, nodes=[turned, product], initializers=[weight], opset_imports={"": 20}, name="main"
    )
    program = onnx_ir.Model(graph, ir_version=10)
    quantized = quantize(program)
    assert {node.op_type for node in quantized.graph.all_nodes()} >= {"MatMulInteger", "DynamicQuantizeLinear"}
    assert not {node.op_type for node in quantized.graph.all_nodes()} & {"MatMul", "Transpose"}
    # The graph that was given is as it was.
    assert [node.op_type for node in program.graph] == ["Transpose", "MatMul"]


def test_a_graph_serves_the_dimensions_of_its_level(tiny_sentence_transformer):
    tokenizer = AutoTokenizer.from_pretrained(tiny_sentence_transformer)
    encoder = mamba_sentence_encoder(mamba_models.make(dim_widths=[0.25, 0.5, 0.5]), tokenizer)
    assert MambaEncoderExporter(encoder, "full").onnx_dims("remote_code") == [16, 48]
    assert MambaEncoderExporter(encoder, "w0.25").onnx_dims("remote_code") == DIMS
    stream = MambaEncoderExporter(encoder, "full").onnx_stream_model("remote_code")
    assert stream.config.levels[-1] == "w0.5"


def test_the_card_tells_the_truth(exported, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo_id, **kwargs: repo_id)
    monkeypatch.setattr(sys, "path", sys.path[:])
    card = (exported / "README.md").read_text().replace(UNKNOWN_MODEL_ID, str(exported))
    codes = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    names = {}
    for code in codes:
        if "onnx" in code:
            exec(code, names)
    assert names["embeddings"].shape == (2, 8) and names["embedding"].shape == (1, 8)
    assert "`model_stream.onnx`" in card and "`model_int8.onnx` holds the weights" in card
