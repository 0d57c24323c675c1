"""A causal Matryoshka Mamba encoder as an ONNX graph for texts that arrive in parts."""

import copy
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from ..modeling.band_head import unit_length
from ..modeling.modeling_matryoshka_mamba import MatryoshkaMambaModel
from . import mamba_onnx_stream
from .code_imports import check_imports
from .mamba_onnx_stream import OnnxMambaStream
from .onnx_check import difference
from .onnx_export import check_difference, check_onnx_packages
from .onnx_graph import save_graph, trace
from .onnx_mamba import INPUTS, MambaStreamGraph


STREAM_FILE = "model_stream.onnx"
CODE = Path(mamba_onnx_stream.__file__)


@dataclass(frozen=True)
class OnnxStreamExport:
    """A streaming graph on disk.

    Args:
        graph (`Path`): The graph.
        nbytes (`int`): Bytes of the graph with its weights.
        max_difference (`float`): Largest difference of an embedding value from the torch model.
    """

    graph: Path
    nbytes: int
    max_difference: float


def export_onnx_stream(
    model: MatryoshkaMambaModel, folder: str | os.PathLike, level: int | str | None = None
) -> OnnxStreamExport:
    """Write a causal Matryoshka Mamba encoder as a graph for texts that arrive in parts, run it, and compare.

    The graph `model_stream.onnx` takes `input_ids` and `attention_mask` (padding after the tokens) and the tensors of
    an [`OnnxMambaState`], and returns `sentence_embedding` of the texts so far and the new tensors, each with the
    prefix `new_`. The number of texts and that of tokens are free. [`OnnxMambaStream`] runs it; its code, which needs
    numpy and ONNX Runtime only, is written beside it.

    Args:
        model ([`MatryoshkaMambaModel`]): The model, with `direction="causal"`; half precision is exported in single
            precision.
        folder (`str` or `os.PathLike`): Where to write; an earlier graph is replaced.
        level (`int`, `str` or `None`): The level that computes, the largest by default.

    Returns:
        [`OnnxStreamExport`]: What was written.

    Raises:
        ImportError: If the packages for ONNX are not installed.
        ValueError: If the model is not causal, or the level does not exist.
        ExportError: If the graph does not compute what the model computes; nothing is written then.
    """
    check_onnx_packages()
    if model.config.direction != "causal":
        raise ValueError(
            f"a streaming graph needs direction 'causal', but the model has {model.config.direction!r}; export the "
            "plain graph"
        )
    graph = MambaStreamGraph(copy.deepcopy(model.cut(level)).cpu().float().eval())
    config = graph.model.config
    Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as staged, torch.no_grad():
        program = trace(graph)
        program.metadata_props["matryoshka_dims"] = ",".join(map(str, config.matryoshka_dims))
        program.metadata_props["segment_length"] = str(config.segment_length)
        nbytes = save_graph(program, Path(staged) / STREAM_FILE)
        largest = check_difference(_stream_difference(OnnxMambaStream(Path(staged) / STREAM_FILE), graph))
        shutil.copyfile(CODE, Path(staged) / CODE.name)
        check_imports(Path(staged))
        for file in Path(staged).iterdir():
            os.replace(file, Path(folder) / file.name)
    return OnnxStreamExport(Path(folder) / STREAM_FILE, nbytes, largest)


def _stream_difference(stream: OnnxMambaStream, graph: MambaStreamGraph) -> float:
    """Largest difference of an embedding value: texts in three parts on ONNX Runtime, and as a whole in torch."""
    largest = 0.0
    for batch in graph.batches():
        ids, mask = (batch[name] for name in INPUTS)
        state = stream.new_state(len(ids))
        for columns in torch.arange(ids.shape[1]).tensor_split((1, 1 + ids.shape[1] // 3)):
            state = stream.update(state, ids[:, columns].numpy(), mask[:, columns].numpy())
        expected = graph.model(ids, mask, return_tokens=False).embeddings
        for dim in stream.matryoshka_dims:
            actual = torch.from_numpy(stream.embed(state, dim))
            largest = max(largest, difference(actual, unit_length(expected, dim)))
    return largest
