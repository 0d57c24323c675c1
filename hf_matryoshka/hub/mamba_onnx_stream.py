"""Streaming with the ONNX graph of a Matryoshka Mamba encoder: numpy and ONNX Runtime, no torch.

An export puts this file beside its graph, so it imports nothing else.
"""

import importlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np


# The tensors of a state, in the order of the graph's inputs; what the graph returns of each is called `new_<name>`.
STATE_INPUTS = ("conv", "ssm", "peak", "total", "weighted")


@dataclass(frozen=True)
class OnnxMambaState:
    """What a graph remembers of the texts so far; it is never changed, so that a text can go on in several ways.

    Args:
        tensors (`dict[str, np.ndarray]`): `conv` of shape `(layers, batch, conv_kernel - 1, channels)`, `ssm` of shape
            `(layers, batch, heads, head_dim, state)`, and of the pooled tokens `peak` and `total` of shape
            `(batch, bands)` and `weighted` of shape `(batch, bands, hidden)`.
        embeddings (`np.ndarray` of shape `(batch, dim)`): Those of the texts so far; 0 of a text without tokens.
        lengths (`np.ndarray` of shape `(batch,)`): Tokens of each text so far.
    """

    tensors: dict[str, np.ndarray]
    embeddings: np.ndarray
    lengths: np.ndarray

    @property
    def batch_size(self) -> int:
        return len(self.lengths)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


class OnnxMambaStream:
    """`new_state`, `update` and `embed` as a [`MatryoshkaMambaModel`] has them, on ONNX Runtime.

    Args:
        graph (`str` or `os.PathLike`): The file `model_stream.onnx`.
        session_options (`onnxruntime.SessionOptions`, *optional*): Settings of ONNX Runtime, such as its threads.
        provider (`str`, *optional*, defaults to `"CPUExecutionProvider"`): Execution provider of ONNX Runtime.

    Raises:
        ImportError: If ONNX Runtime is not installed.
        ValueError: If the graph is no such graph.
    """

    def __init__(self, graph: str | os.PathLike, session_options: Any = None, provider: str = "CPUExecutionProvider"):
        try:
            # Only here: the rest of the package does without.
            onnxruntime = importlib.import_module("onnxruntime")
        except ImportError as error:
            raise ImportError(
                "an ONNX graph runs on ONNX Runtime, which is not installed; run `pip install onnxruntime`"
            ) from error
        self.session = onnxruntime.InferenceSession(os.fspath(graph), session_options, providers=[provider])
        shapes = {item.name: item.shape for item in self.session.get_inputs()}
        if not shapes.keys() >= set(STATE_INPUTS):
            raise ValueError(f"{graph} takes no states; give the file model_stream.onnx of an export")
        self._shapes = {name: shapes[name] for name in STATE_INPUTS}
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.segment_length = int(metadata["segment_length"])
        self.matryoshka_dims = [int(dim) for dim in metadata["matryoshka_dims"].split(",")]

    def new_state(self, batch_size: int = 1) -> OnnxMambaState:
        """The state of texts that have no tokens yet.

        Args:
            batch_size (`int`, *optional*, defaults to 1): How many texts.
        """
        tensors = {
            name: np.zeros([batch_size if size == "batch" else size for size in shape], dtype=np.float32)
            for name, shape in self._shapes.items()
        }
        tensors["peak"][:] = -np.inf
        embeddings = np.zeros((batch_size, self.matryoshka_dims[-1]), dtype=np.float32)
        return OnnxMambaState(tensors, embeddings, np.zeros(batch_size, dtype=np.int64))

    def update(
        self, state: OnnxMambaState, input_ids: np.ndarray, attention_mask: np.ndarray | None = None
    ) -> OnnxMambaState:
        """The state after further tokens of each text, for the cost of these.

        Args:
            state ([`OnnxMambaState`]): The state so far; it is not changed.
            input_ids (`np.ndarray` of shape `(batch, length)`): The next tokens, without special ones between.
            attention_mask (`np.ndarray` of shape `(batch, length)`, *optional*): 1 for tokens, 0 for padding on any
                side; a text may have none.

        Raises:
            ValueError: If the state is that of another graph or of another number of texts.
        """
        input_ids = np.asarray(input_ids, dtype=np.int64)
        if input_ids.ndim != 2 or input_ids.shape[0] != state.batch_size:
            raise ValueError(
                f"the state is that of {state.batch_size} texts, but input_ids have the shape {input_ids.shape}; give "
                "(batch, length) with as many rows"
            )
        for name, shape in self._shapes.items():
            found = state.tensors[name].shape
            if found != tuple(state.batch_size if size == "batch" else size for size in shape):
                raise ValueError(f"the state is that of another graph: its {name} has the shape {found}, not {shape}")
        mask = np.ones_like(input_ids)
        if attention_mask is not None:
            mask = (np.asarray(attention_mask) != 0).astype(np.int64)
        # Tokens to the left, so that segments count tokens, not padding.
        order = np.argsort(-mask, axis=1, kind="stable")
        input_ids, mask = np.take_along_axis(input_ids, order, 1), np.take_along_axis(mask, order, 1)
        tensors, embeddings = state.tensors, state.embeddings
        counts = mask.sum(axis=1)
        for start in range(0, int(counts.max(initial=0)), self.segment_length):
            part = slice(start, min(start + self.segment_length, int(counts.max())))
            feed = {"input_ids": input_ids[:, part], "attention_mask": mask[:, part], **tensors}
            outputs = ["sentence_embedding", *(f"new_{name}" for name in STATE_INPUTS)]
            embeddings, *new = self.session.run(outputs, feed)
            tensors = dict(zip(STATE_INPUTS, new, strict=True))
        return OnnxMambaState(tensors, embeddings, state.lengths + counts)

    def embed(self, state: OnnxMambaState, matryoshka_dim: int | None = None) -> np.ndarray:
        """Embeddings of the texts so far, `(batch, dim)`, of unit length; that of a text without tokens is 0.

        Args:
            state ([`OnnxMambaState`]): The state.
            matryoshka_dim (`int`, *optional*): One of the trained dimensions; the largest by default.

        Raises:
            ValueError: If the dimension was not trained.
        """
        dim = self.matryoshka_dims[-1] if matryoshka_dim is None else matryoshka_dim
        if dim not in self.matryoshka_dims:
            known = ", ".join(map(str, self.matryoshka_dims))
            raise ValueError(f"matryoshka_dim {dim} was not trained; choose one of {known}")
        leading = state.embeddings[:, :dim]
        return leading / np.maximum(np.linalg.norm(leading, axis=1, keepdims=True), 1e-12)


__all__ = ["OnnxMambaState", "OnnxMambaStream"]
