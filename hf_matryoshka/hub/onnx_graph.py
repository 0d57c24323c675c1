"""Tracing a model to an ONNX graph with transformers' exporter, and quantising it."""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from ..modeling.configuration_matryoshka_adaptor import MatryoshkaAdaptorConfig
from .onnx_check import probe_texts, probe_vectors, token_batches
from .progress import no_progress_bars


if TYPE_CHECKING:
    import onnx_ir


# An ONNX file is one protobuf message, which ends at 2 GiB; larger weights go beside it.
MAX_GRAPH_BYTES = 2**31 - 2**24


class TextGraph(nn.Module):
    """What is traced of a `SentenceTransformer`: from tokens to the embedding of the full nested width.

    Args:
        model (`SentenceTransformer`): The model, on the CPU.
        dim (`int`): The full width.
    """

    axes = {0: "batch", 1: "sequence"}
    output, output_axes = "sentence_embedding", {0: "batch"}
    # Of int8; see `quantize`.
    table_rows = False

    def __init__(self, model: SentenceTransformer, dim: int):
        super().__init__()
        self.model = model
        self.settings = {"matryoshka_dim": dim} if "matryoshka_dim" in model.get_model_kwargs() else {}

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sentence_embedding": self.model(dict(inputs), **self.settings)["sentence_embedding"]}

    def sample(self) -> dict[str, torch.Tensor]:
        """The inputs to trace with: two texts of unequal length."""
        features = self.model.preprocess(probe_texts()[:2])
        return {name: value for name, value in features.items() if isinstance(value, torch.Tensor)}

    def batches(self) -> Iterator[dict[str, torch.Tensor]]:
        """Inputs of other shapes."""
        longest = min(self.model.max_seq_length or 512, 512)
        vocabulary = self.model[0].model.get_input_embeddings().num_embeddings
        return token_batches(list(self.sample()), vocabulary, longest)


class VectorGraph(nn.Module):
    """What is traced of a model on embeddings: its largest level.

    Args:
        model (`PreTrainedModel`): The model, on the CPU.
        dim (`int`): The width of that level.
    """

    axes = {0: "batch"}
    output, output_axes = "sentence_embedding", {0: "batch"}
    table_rows = False

    def __init__(self, model: PreTrainedModel, dim: int):
        super().__init__()
        self.model = model
        self.dim = dim

    def forward(self, embeddings: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sentence_embedding": self.model(embeddings, matryoshka_dim=self.dim).embeddings}

    def sample(self) -> dict[str, torch.Tensor]:
        """The inputs to trace with: two vectors."""
        return {"embeddings": probe_vectors(self.model.config.embedding_dim)[:2]}

    def batches(self) -> Iterator[dict[str, torch.Tensor]]:
        """Inputs of other shapes."""
        vectors = probe_vectors(self.model.config.embedding_dim)
        return iter([{"embeddings": vectors[:1]}, {"embeddings": vectors[:77]}])


class TokenGraph(nn.Module):
    """What is traced of a model on tokens: its largest level, up to its first output.

    Args:
        model (`PreTrainedModel`): The model, on the CPU.
    """

    axes = {0: "batch", 1: "sequence"}
    table_rows = False

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model
        found = model(**self.sample())
        self.output = "logits" if "logits" in found else next(iter(found))
        self.output_axes = self.axes if found[self.output].ndim == 3 else {0: "batch"}

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return {self.output: self.model(input_ids=input_ids, attention_mask=attention_mask)[self.output]}

    def sample(self) -> dict[str, torch.Tensor]:
        """The inputs to trace with: two texts of unequal length."""
        return next(batch for batch in self.batches() if len(batch["input_ids"]) == 5)

    def batches(self) -> Iterator[dict[str, torch.Tensor]]:
        """Inputs of several shapes."""
        # A model without learned positions has no longest text.
        longest = min(getattr(self.model.config, "max_position_embeddings", 64), 64)
        return token_batches(["input_ids", "attention_mask"], self.model.config.vocab_size, longest)


def trace(graph: nn.Module) -> "onnx_ir.Model":
    """The ONNX graph of a model, with nothing in it that says where or when it was made.

    Args:
        graph (`TextGraph`, or another module like it): Has `sample`, and `axes` and `output_axes`: names of the free
            axes of all inputs and outputs, or of each by its name.
    """
    import onnx_ir
    from torch.export import Dim
    from transformers.exporters import OnnxConfig, OnnxExporter

    inputs = graph.sample()
    # `Dim.AUTO` would silently fix an axis that the model does not leave free.
    shapes = {name: dict.fromkeys(_axes_of(graph.axes, name), Dim.DYNAMIC) for name in inputs}
    with _quiet():
        program = OnnxExporter().export(_without_solver(graph), inputs, OnnxConfig(dynamic_shapes=shapes)).program
    # Each node remembers the lines of code that it comes from, with the folders they lie in.
    program.metadata_props.clear()
    program.graph.metadata_props.clear()
    for value in [*program.graph.inputs, *program.graph.initializers.values()]:
        value.metadata_props.clear()
    for node in program.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
            # Runtimes infer shapes themselves, and these have generated names.
            value.shape, value.type = (value.shape, value.type) if value.is_graph_output() else (None, None)
    for value in [*program.graph.inputs, *program.graph.outputs]:
        axes = _axes_of(graph.axes if value.is_graph_input() else graph.output_axes, value.name)
        value.shape = onnx_ir.Shape([axes.get(axis, size) for axis, size in enumerate(value.shape)])
    return program


def _axes_of(axes: dict, name: str) -> dict[int, str]:
    return axes.get(name, axes)


def quantize(program: "onnx_ir.Model", table_rows: bool = False) -> "onnx_ir.Model":
    """A copy of a graph with weights in int8, a scale for each output channel, and activations quantised in each call.

    One scale for a whole matrix loses several times as much. The weights use seven of their eight bits: with all
    eight, sums of products saturate on x86 processors without VNNI, and the loss would depend on the machine. Only
    products with a constant matrix are quantised: ONNX Runtime takes a constant vector for one, and fails.

    Args:
        program (`onnx_ir.Model`): The graph.
        table_rows (`bool`, *optional*, defaults to `False`): Whether each row of an embedding table has its own scale,
            and all eight bits, instead of one for the table.
    """
    from onnxruntime.quantization import QuantType
    from transformers.exporters import OnnxRuntimeDynamicConfig, OnnxRuntimeQuantizer
    from transformers.exporters.configs import ExportFormat

    program = program.clone()
    _fold_transposes(program)
    excluded = [
        node.name
        for node in program.graph.all_nodes()
        if node.op_type == "MatMul" and node.inputs[1].is_initializer() and len(node.inputs[1].shape) != 2
    ]
    if table_rows:
        excluded += _quantize_tables(program)
    settings = OnnxRuntimeDynamicConfig(
        weight_type=QuantType.QInt8, per_channel=True, reduce_range=True, nodes_to_exclude=excluded
    )
    with _quiet():
        return OnnxRuntimeQuantizer(settings).quantize(program, {}, ExportFormat.ONNX)


def _fold_transposes(program: "onnx_ir.Model") -> None:
    """Put transposed weights in place of weights and their transposition: the exporter leaves large ones that were
    sliced, and their products would stay in single precision."""
    graph = program.graph
    for node in [node for node in graph if node.op_type == "Transpose" and node.inputs[0].is_initializer()]:
        weight = node.inputs[0]
        order = node.attributes["perm"].as_ints() if "perm" in node.attributes else None
        values = np.ascontiguousarray(np.transpose(weight.const_value.numpy(), order))
        node.outputs[0].replace_all_uses_with(_initializer(graph, f"{weight.name}_transposed", values))
        graph.remove(node, safe=True)
        if not weight.uses():
            del graph.initializers[weight.name]


def _initializer(graph: "onnx_ir.Graph", name: str, values: np.ndarray) -> "onnx_ir.Value":
    import onnx_ir

    value = onnx_ir.val(name, const_value=onnx_ir.tensor(values, name=name))
    graph.initializers.add(value)
    return value


def _quantize_tables(program: "onnx_ir.Model") -> list[str]:
    """Put the rows of each embedding table into int8; returns the names of the nodes that read the scales."""
    import onnx_ir

    graph, readers = program.graph, []
    for node in [node for node in graph if node.op_type == "Gather"]:
        table, ids = node.inputs
        if not table.is_initializer() or len(table.shape) != 2 or table.dtype != onnx_ir.DataType.FLOAT:
            continue
        rows = table.const_value.numpy()
        scales = np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.finfo(np.float32).tiny * 127) / 127
        quantized = _initializer(graph, f"{table.name}_quantized", np.round(rows / scales).astype(np.int8))
        row = onnx_ir.node("Gather", [quantized, ids], name=f"{node.name}_quantized")
        wide = onnx_ir.node("Cast", row.outputs, {"to": onnx_ir.DataType.FLOAT}, name=f"{node.name}_cast")
        scales = _initializer(graph, f"{table.name}_scale", scales.astype(np.float32))
        scale = onnx_ir.node("Gather", [scales, ids], name=f"{node.name}_scale")
        product = onnx_ir.node("Mul", [wide.outputs[0], scale.outputs[0]], name=f"{node.name}_scaled")
        new = [row, wide, scale, product]
        onnx_ir.convenience.replace_nodes_and_values(graph, node, [node], new, node.outputs, product.outputs)
        readers.append(scale.name)
        if not table.uses():
            del graph.initializers[table.name]
    return readers


def save_graph(program: "onnx_ir.Model", path: Path) -> int:
    """Write a graph, with its weights beside it if they are too large for one file; returns the bytes of both."""
    import onnx_ir

    weights = sum(value.const_value.nbytes for value in program.graph.initializers.values())
    data = path.with_name(f"{path.name}.data")
    onnx_ir.save(program, path, external_data=data.name if weights > MAX_GRAPH_BYTES else None)
    return sum(file.stat().st_size for file in (path, data) if file.is_file())


class _Matrix(nn.Module):
    """A linear adaptor as the matrix that it is."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, embeddings: torch.Tensor, dim: int) -> torch.Tensor:
        return F.linear(embeddings, self.weight[:dim])


@torch.no_grad()
def _without_solver(graph: nn.Module) -> nn.Module:
    """The same with each orthogonal adaptor as one matrix: ONNX has no triangular solve, which builds it."""

    def is_orthogonal(module: nn.Module) -> bool:
        return (
            isinstance(module, PreTrainedModel)
            and module.config.model_type == MatryoshkaAdaptorConfig.model_type
            and module.config.kind == "orthogonal"
        )

    if not any(map(is_orthogonal, graph.modules())):
        return graph
    graph = copy.deepcopy(graph)
    for module in filter(is_orthogonal, list(graph.modules())):
        width = module.config.embedding_dim
        module.adaptor = _Matrix(module.adaptor(torch.eye(width), width).T.contiguous())
    return graph


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back progress and remarks on versions and missing packages; errors are raised all the same."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), no_progress_bars():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
