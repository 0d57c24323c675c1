"""An exported ONNX graph as a sentence-transformers module: tokenizer, ONNX Runtime, truncated embedding."""

import hashlib
import importlib
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.modules import InputModule
from torch.nn import functional as F
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from .levels import check_matryoshka_dims, resolve_matryoshka_dim
from .st_repo_code import copy_code_to_root


class MatryoshkaOnnx(InputModule):
    """Embeds texts with a graph that holds the whole model, and returns a unit-length prefix.

    The width is chosen per call: `model.encode(texts, matryoshka_dim=64)`. What runs the graph is chosen at loading:
    `SentenceTransformer(folder, trust_remote_code=True, model_kwargs={"file_name": "model_int8.onnx"})`.

    Args:
        graph (`str` or `os.PathLike`):
            The `.onnx` file. Its inputs are outputs of the tokenizer, its output `sentence_embedding` has at least
            the width of the largest level.
        tokenizer (`PreTrainedTokenizerBase`):
            The tokenizer; its `model_max_length` is the length at which texts are cut.
        matryoshka_dims (`list[int]`):
            The trained widths, strictly increasing.
        matryoshka_dim (`int`, *optional*):
            Width that calls without `matryoshka_dim` get; by default the largest.
        provider (`str`, *optional*, defaults to `"CPUExecutionProvider"`):
            Execution provider of ONNX Runtime.
        session_options (`onnxruntime.SessionOptions`, *optional*):
            Settings of ONNX Runtime; by default it uses as many threads as torch.

    Raises:
        ImportError: If ONNX Runtime is not installed.
        ValueError: If the widths do not increase, the default is not among them, or the provider is not available.
    """

    # Not `config.json`, which belongs to models of transformers.
    config_file_name = "sentence_onnx_config.json"
    config_keys = ["file_name", "matryoshka_dims", "matryoshka_dim"]
    forward_kwargs = {"matryoshka_dim"}

    def __init__(
        self,
        graph: str | os.PathLike,
        tokenizer: PreTrainedTokenizerBase,
        matryoshka_dims: list[int],
        matryoshka_dim: int | None = None,
        provider: str = "CPUExecutionProvider",
        session_options: Any = None,
    ):
        super().__init__()
        check_matryoshka_dims(matryoshka_dims)
        self.graph = Path(graph)
        self.tokenizer = tokenizer
        self.matryoshka_dims = list(matryoshka_dims)
        self.matryoshka_dim = resolve_matryoshka_dim(self.matryoshka_dims, matryoshka_dim)
        self.provider = provider
        self.session_options = session_options
        self.session = self._start_session()

    def _start_session(self):
        try:
            # Only here, and not as a statement: transformers refuses to load a file whose imports are missing.
            onnxruntime = importlib.import_module("onnxruntime")
        except ImportError as error:
            raise ImportError(
                "an ONNX graph runs on ONNX Runtime, which is not installed; run `pip install onnxruntime`"
            ) from error
        available = onnxruntime.get_available_providers()
        if self.provider not in available:
            raise ValueError(
                f"provider {self.provider!r} is not available in this ONNX Runtime; choose one of "
                f"{', '.join(available)}"
            )
        options = self.session_options
        if options is None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = torch.get_num_threads()
        return onnxruntime.InferenceSession(str(self.graph), options, providers=[self.provider])

    # A session cannot be copied or sent to another process, so a copy starts its own.
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "session": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.session = self._start_session()

    def _files(self) -> list[Path]:
        """The graph, and the weights beside it if it has any."""
        return [file for file in (self.graph, self.graph.with_name(f"{self.graph.name}.data")) if file.is_file()]

    def get_extra_state(self) -> torch.Tensor:
        """Hash of the graph: without it, the state dicts of all graphs would be equal, namely empty."""
        digest = hashlib.sha256()
        for path in self._files():
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return torch.tensor(list(digest.digest()), dtype=torch.uint8)

    @property
    def file_name(self) -> str:
        """Name of the graph, for example `"model_int8.onnx"`."""
        return self.graph.name

    @property
    def max_seq_length(self) -> int:
        """Number of tokens at which texts are cut."""
        return self.tokenizer.model_max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self.tokenizer.model_max_length = value

    def preprocess(
        self,
        inputs: Sequence[str],
        prompt: str | None = None,
        processing_kwargs: dict[str, dict[str, Any]] | None = None,
        **kwargs,
    ) -> dict[str, torch.Tensor]:
        """
        Args:
            inputs (`Sequence[str]`): Texts.
            prompt (`str`, *optional*): What to put before each text.
            processing_kwargs (`dict`, *optional*): Further arguments of the tokenizer under `"text"`.

        Returns:
            `dict`: Tensors of shape `(batch, length)`.
        """
        texts = self._prepend_prompt(inputs, prompt) if prompt else list(inputs)
        settings = {"padding": True, "truncation": "longest_first", **(processing_kwargs or {}).get("text", {})}
        return dict(self.tokenizer(texts, return_tensors="pt", **settings))

    def forward(
        self, features: dict[str, torch.Tensor | Any], matryoshka_dim: int | None = None
    ) -> dict[str, torch.Tensor | Any]:
        """
        Args:
            features (`dict`): What `preprocess` returned.
            matryoshka_dim (`int`, *optional*): One of the trained widths; by default the module's own.

        Returns:
            `dict`: The features, with `"sentence_embedding"` of shape `(batch, matryoshka_dim)` and unit length.

        Raises:
            ValueError: If the width was not trained.
        """
        dim = self.matryoshka_dim if matryoshka_dim is None else matryoshka_dim
        dim = resolve_matryoshka_dim(self.matryoshka_dims, dim)
        feed = {node.name: features[node.name].cpu().numpy() for node in self.session.get_inputs()}
        (embedding,) = self.session.run(["sentence_embedding"], feed)
        embedding = torch.from_numpy(embedding).to(features["input_ids"].device)
        features["sentence_embedding"] = F.normalize(embedding[..., :dim], dim=-1)
        return features

    def get_embedding_dimension(self) -> int:
        """Width of the embeddings that calls without `matryoshka_dim` get."""
        return self.matryoshka_dim

    # The former name, which others still call; the one that sentence-transformers supplies warns.
    get_sentence_embedding_dimension = get_embedding_dimension

    def save(self, output_path: str, *args, safe_serialization: bool = True, **kwargs) -> None:
        """Write the graph that this module runs, which becomes the default, tokenizer, config and code."""
        for file in self._files():
            target = Path(output_path) / file.name
            if not (target.exists() and target.samefile(file)):
                shutil.copyfile(file, target)
        self.tokenizer.save_pretrained(output_path)
        self.save_config(output_path)
        copy_code_to_root(self, output_path)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        model_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        **kwargs,
    ) -> "MatryoshkaOnnx":
        """Load from a folder or a Hub repo.

        Args:
            model_kwargs (`dict`, *optional*): `file_name`, `provider` and `session_options`.
            processor_kwargs (`dict`, *optional*): Further arguments of the tokenizer.

        The others are as in [`~sentence_transformers.base.modules.Module.load`].

        Raises:
            FileNotFoundError: If there is no such graph.
            ValueError: If `model_kwargs` holds anything else.
        """
        hub_kwargs = {
            "subfolder": subfolder,
            "token": token,
            "revision": revision,
            "local_files_only": local_files_only,
        }
        config = cls.load_config(model_name_or_path, cache_folder=cache_folder, **hub_kwargs)
        settings = {"file_name": config.pop("file_name"), **(model_kwargs or {})}
        unknown = settings.keys() - {"file_name", "provider", "session_options"}
        if unknown:
            raise ValueError(
                f"model_kwargs holds {', '.join(sorted(unknown))}, but an ONNX graph takes only file_name, provider "
                "and session_options"
            )
        name = settings.pop("file_name")
        if not re.fullmatch(r"[^/\\:\x00-\x1f]+\.onnx", name):
            raise ValueError(f"file_name {name!r} must be the name of an .onnx file of the repo, without a folder")
        # Weights that do not fit into the graph lie beside it; usually there are none.
        graph, _ = (
            cls.load_file_path(model_name_or_path, file, cache_folder=cache_folder, **hub_kwargs)
            for file in (name, f"{name}.data")
        )
        if graph is None:
            raise FileNotFoundError(
                f"{model_name_or_path} holds no graph {name}; exports are called model.onnx and model_int8.onnx"
            )
        tokenizer = AutoTokenizer.from_pretrained(
            model_name_or_path,
            cache_dir=cache_folder,
            trust_remote_code=trust_remote_code,
            **hub_kwargs,
            **(processor_kwargs or {}),
        )
        return cls(graph, tokenizer, **config, **settings)


__all__ = ["MatryoshkaOnnx"]
