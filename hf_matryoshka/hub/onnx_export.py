"""A model as an ONNX graph, with a repo that runs it."""

import copy
import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import PreTrainedModel

from ..modeling.levels import check_matryoshka_dims
from ..modeling.st_matryoshka_onnx import MatryoshkaOnnx
from .code_imports import check_imports
from .onnx_check import (
    Int8Loss,
    encode,
    encode_level,
    graph_difference,
    int8_loss,
    probe_texts,
    probe_vectors,
    run_graph,
    text_difference,
)
from .onnx_graph import TextGraph, VectorGraph, quantize, save_graph, trace
from .onnx_mamba import text_graph, token_graph
from .output_folder import staged_folder
from .self_contained import save_self_contained


GRAPH_FILE = "model.onnx"
INT8_FILE = "model_int8.onnx"
TOLERANCE = 1e-5
MIN_SAMPLES = 12


@dataclass(frozen=True)
class OnnxExport:
    """An ONNX export on disk.

    Args:
        folder (`Path`): Where it lies.
        matryoshka_dims (`list[int]`): The widths it serves; empty for a model on tokens.
        max_difference (`float`): Largest difference of an output value from the torch model in single precision.
        sizes (`dict[str, int]`): Bytes of each graph with its weights, by file name.
        int8 (`list[Int8Loss]`): What int8 costs at each width; empty without an int8 graph.
        num_samples (`int`): Number of texts, vectors or tokens on which that was measured.
    """

    folder: Path
    matryoshka_dims: list[int]
    max_difference: float
    sizes: dict[str, int]
    int8: list[Int8Loss]
    num_samples: int

    @property
    def int8_size_ratio(self) -> float | None:
        """Bytes of the int8 graph over those of the single-precision one; `None` without an int8 graph."""
        return self.sizes[INT8_FILE] / self.sizes[GRAPH_FILE] if INT8_FILE in self.sizes else None


def export_onnx(
    model: SentenceTransformer | PreTrainedModel,
    folder: str | os.PathLike,
    *,
    matryoshka_dims: Sequence[int],
    int8: bool = True,
    samples: Sequence[str] | np.ndarray | None = None,
) -> OnnxExport:
    """Write a model as an ONNX graph, run it at other shapes than the traced one, and compare.

    A `SentenceTransformer` becomes a repo of its own: `SentenceTransformer(folder, trust_remote_code=True)` embeds
    texts with ONNX Runtime, without this package and without the torch weights. Its graph takes `input_ids`,
    `attention_mask` and whatever else the tokenizer gives, with both axes free, and returns `sentence_embedding` of
    the full width. A model on embeddings (an adaptor by itself) becomes the graph alone: it takes `embeddings`, and
    its output is cut to a level and brought back to unit length by whoever runs it.

    The int8 graph quantises the activations of a call by their range in that call, so an embedding depends a little
    on what it is batched with.

    Args:
        model (`SentenceTransformer` or `PreTrainedModel`): The model; half precision is exported in single precision.
        folder (`str` or `os.PathLike`): A new or empty folder. Nothing appears there unless the comparison succeeds.
        matryoshka_dims (`Sequence[int]`): The widths that the model serves, strictly increasing.
        int8 (`bool`, *optional*, defaults to `True`): Whether to write a quantised graph, too.
        samples (`Sequence[str]` or `np.ndarray`, *optional*): Texts, or vectors for a model on embeddings, to measure
            the loss of int8 on; by default 256 built-in ones.

    Returns:
        [`OnnxExport`]: What was written.

    Raises:
        ImportError: If the packages for ONNX are not installed.
        ValueError: If the model cannot be such a graph or does not give these widths.
        FileExistsError: If the folder holds files.
        ExportError: If the graph does not load or does not compute what the model computes.
    """
    check_onnx_packages()
    on_texts = isinstance(model, SentenceTransformer)
    if not on_texts and model.main_input_name != "embeddings":
        raise ValueError(
            f"an ONNX export takes a SentenceTransformer or a model on embeddings, but {type(model).__name__} takes "
            f"{model.main_input_name}; put it into a SentenceTransformer, or use export_token_onnx"
        )
    path, dims = _empty_folder(folder), list(matryoshka_dims)
    check_matryoshka_dims(dims)
    if samples is not None and len(samples) < MIN_SAMPLES:
        raise ValueError(
            f"samples has {len(samples)} entries, but ten neighbours of each are compared; give at least {MIN_SAMPLES}"
        )
    if on_texts:
        _check_text_model(model)
    # On the CPU, in single precision and evaluation mode, without touching the caller's model.
    model = copy.deepcopy(model).cpu().float().eval()
    graph = text_graph(model, dims[-1]) if on_texts else VectorGraph(model, dims[-1])
    with staged_folder(path) as staged, torch.no_grad():
        default = _default_width(graph, dims)
        program = trace(graph)
        sizes = {GRAPH_FILE: save_graph(program, staged / GRAPH_FILE)}
        if int8:
            sizes[INT8_FILE] = save_graph(quantize(program, graph.table_rows), staged / INT8_FILE)
        largest = check_difference(graph_difference(staged / GRAPH_FILE, graph, graph.batches()))
        if on_texts:
            _save_repo(model, staged, dims, default)
            largest = max(largest, check_difference(text_difference(_load(staged, GRAPH_FILE), model, dims)))
        if samples is None:
            samples = probe_texts() if on_texts else probe_vectors(model.config.embedding_dim)
        losses = []
        if int8 and on_texts:
            actual = encode(_load(staged, INT8_FILE), samples, matryoshka_dim=dims[-1])
            losses = int8_loss(actual, encode_level(model, samples, dims[-1]), dims)
        elif int8:
            vectors = {"embeddings": torch.as_tensor(samples, dtype=torch.float32)}
            losses = int8_loss(run_graph(staged / INT8_FILE, vectors), graph(**vectors)["sentence_embedding"], dims)
    return OnnxExport(path, dims, largest, sizes, losses, len(samples))


def export_token_onnx(model: PreTrainedModel, folder: str | os.PathLike, *, int8: bool = True) -> OnnxExport:
    """Write a model on tokens as an ONNX graph, run it at other shapes than the traced one, and compare.

    The graph takes `input_ids` and `attention_mask`, with both axes free, and returns the model's first output
    (`logits`, or `last_hidden_state` without a head) at its largest level; that of a [`MatryoshkaMambaModel`] returns
    `sentence_embedding` of all dimensions.

    Args:
        model (`PreTrainedModel`): The model; half precision is exported in single precision.
        folder (`str` or `os.PathLike`): A new or empty folder. Nothing appears there unless the comparison succeeds.
        int8 (`bool`, *optional*, defaults to `True`): Whether to write a quantised graph, too.

    Returns:
        [`OnnxExport`]: What was written; the loss of int8 is that of the output's vectors, one a token (one a text
        where the output is).

    Raises:
        ImportError, FileExistsError, ExportError: See [`export_onnx`].
    """
    check_onnx_packages()
    path = _empty_folder(folder)
    model = copy.deepcopy(model).cpu().float().eval()
    with staged_folder(path) as staged, torch.no_grad():
        graph = token_graph(model)
        program = trace(graph)
        sizes = {GRAPH_FILE: save_graph(program, staged / GRAPH_FILE)}
        largest = check_difference(graph_difference(staged / GRAPH_FILE, graph, graph.batches()))
        losses, count = [], 0
        if int8:
            sizes[INT8_FILE] = save_graph(quantize(program, graph.table_rows), staged / INT8_FILE)
            pairs = [
                (run_graph(staged / INT8_FILE, batch).flatten(0, -2), graph(**batch)[graph.output].flatten(0, -2))
                for batch in graph.batches()
            ]
            actual, expected = (torch.cat(vectors) for vectors in zip(*pairs, strict=True))
            losses, count = int8_loss(actual, expected, [expected.shape[-1]]), len(expected)
    return OnnxExport(path, [], largest, sizes, losses, count)


def _empty_folder(folder: str | os.PathLike) -> Path:
    path = Path(folder)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(f"folder {folder} is not empty; name a new or empty folder")
    return path


def check_onnx_packages() -> None:
    """Raise `ImportError` unless the packages for an ONNX export are installed."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f'an ONNX export needs {", ".join(missing)}; run `pip install "hf-matryoshka[onnx]"`')


def _check_text_model(model: SentenceTransformer) -> None:
    """Raise `ValueError` for what a graph on tokens cannot hold."""
    first = model[0]
    if not isinstance(first, Transformer) or "text" not in first.modalities or "message" in first.modalities:
        raise ValueError(
            "an ONNX export starts from a Transformer that takes plain texts, but the model starts with "
            f"{type(first).__name__}"
        )
    if first.processing_kwargs:
        raise ValueError(
            f"an ONNX export cannot keep the processing_kwargs {first.processing_kwargs} of the Transformer; load it "
            "without"
        )
    if any(isinstance(module, Pooling) and not module.include_prompt for module in model):
        raise ValueError("a Pooling with include_prompt=False looks at the prompt, which an ONNX graph does not see")
    if model.truncate_dim is not None:
        raise ValueError(
            f"the model has truncate_dim={model.truncate_dim}; load it without, and give the widths as matryoshka_dims"
        )


def _default_width(graph: TextGraph | VectorGraph, dims: list[int]) -> int:
    """Width of the embeddings that the model gives when it is not asked for one."""
    sample = graph.sample()
    full = graph(**sample)["sentence_embedding"]
    if full.shape[-1] < dims[-1]:
        raise ValueError(
            f"the model gives embeddings of width {full.shape[-1]}, but matryoshka_dims ends at {dims[-1]}"
        )
    if not torch.allclose(full.norm(dim=-1), torch.ones(len(full)), atol=1e-3):
        raise ValueError("the model's embeddings do not have unit length; append a Normalize module before exporting")
    if isinstance(graph, VectorGraph):
        return dims[-1]
    default = graph.model(sample)["sentence_embedding"].shape[-1]
    if default not in dims:
        raise ValueError(
            f"the model gives embeddings of width {default}, which matryoshka_dims does not list: "
            f"{', '.join(map(str, dims))}"
        )
    return default


def check_difference(difference: float) -> float:
    """The difference of a graph from its model; raises `ExportError` if it is more than rounding."""
    from .gate import ExportError

    if not difference <= TOLERANCE:
        raise ExportError(
            f"the ONNX graph differs from the model by {difference:.1e}, more than {TOLERANCE:.0e}; it was not written"
        )
    return difference


def _save_repo(model: SentenceTransformer, folder: Path, dims: list[int], default: int) -> None:
    """Put tokenizer, configs and code beside the graph."""
    repo = SentenceTransformer(
        modules=[MatryoshkaOnnx(folder / GRAPH_FILE, model.tokenizer, dims, default)],
        device="cpu",
        prompts=model.prompts,
        default_prompt_name=model.default_prompt_name,
        similarity_fn_name=model.similarity_fn_name,
    )
    save_self_contained(repo, folder)
    check_imports(folder)


def _load(folder: Path, file_name: str) -> SentenceTransformer:
    """The repo as its users load it, with its own code."""
    from .gate import ExportError

    try:
        return SentenceTransformer(
            str(folder),
            device="cpu",
            trust_remote_code=True,
            local_files_only=True,
            model_kwargs={"file_name": file_name},
        )
    except Exception as error:  # Whatever the reload raises, nobody could use this export.
        raise ExportError(f"the ONNX export does not load back: {error}") from error
