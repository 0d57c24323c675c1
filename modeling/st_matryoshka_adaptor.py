"""The Matryoshka-Adaptor as a sentence-transformers module."""

from typing import Any

import torch
from sentence_transformers.base.modules import Module

from .levels import resolve_matryoshka_dim
from .modeling_matryoshka_adaptor import MatryoshkaAdaptorModel
from .st_repo_code import copy_code_to_root


class MatryoshkaAdaptor(Module):
    """Adapts the sentence embedding of the modules before it and returns a unit-length prefix.

    The width is chosen per call: `model.encode(texts, matryoshka_dim=64)`.

    Args:
        adaptor ([`MatryoshkaAdaptorModel`]):
            The trained adaptor.
        matryoshka_dim (`int`, *optional*):
            Width that calls without `matryoshka_dim` get; by default the largest.

    Raises:
        ValueError: If the width was not trained.
    """

    # Not `config.json`, which is the adaptor's own.
    config_file_name = "sentence_matryoshka_config.json"
    config_keys = ["matryoshka_dim"]
    forward_kwargs = {"matryoshka_dim"}

    def __init__(self, adaptor: MatryoshkaAdaptorModel, matryoshka_dim: int | None = None):
        super().__init__()
        self.adaptor = adaptor
        self.matryoshka_dim = resolve_matryoshka_dim(adaptor.config.matryoshka_dims, matryoshka_dim)

    @property
    def matryoshka_dims(self) -> list[int]:
        """The trained widths, the smallest first."""
        return list(self.adaptor.config.matryoshka_dims)

    def forward(
        self, features: dict[str, torch.Tensor | Any], matryoshka_dim: int | None = None
    ) -> dict[str, torch.Tensor | Any]:
        """
        Args:
            features (`dict`): `"sentence_embedding"` of shape `(batch, embedding_dim)` is replaced.
            matryoshka_dim (`int`, *optional*): One of the trained widths; by default the module's own.

        Returns:
            `dict`: The features, with `"sentence_embedding"` of shape `(batch, matryoshka_dim)` and unit length.

        Raises:
            ValueError: If the width was not trained or the embeddings do not have the adaptor's width.
        """
        dim = self.matryoshka_dim if matryoshka_dim is None else matryoshka_dim
        embedding = self.adaptor(features["sentence_embedding"], matryoshka_dim=dim).embeddings
        features["sentence_embedding"] = embedding
        return features

    def get_embedding_dimension(self) -> int:
        """Width of the embeddings that calls without `matryoshka_dim` get."""
        return self.matryoshka_dim

    # The former name, which others still call; the one that sentence-transformers supplies warns.
    get_sentence_embedding_dimension = get_embedding_dimension

    def save(self, output_path: str, *args, safe_serialization: bool = True, **kwargs) -> None:
        """Write weights (always as safetensors), configs and code; the code also at the root of the repo."""
        self.adaptor.save_pretrained(output_path)
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
        **kwargs,
    ) -> "MatryoshkaAdaptor":
        """Load from a folder or a Hub repo; arguments as in [`~sentence_transformers.base.modules.Module.load`]."""
        hub_kwargs = {
            "subfolder": subfolder,
            "token": token,
            "revision": revision,
            "local_files_only": local_files_only,
        }
        config = cls.load_config(model_name_or_path, cache_folder=cache_folder, **hub_kwargs)
        adaptor = MatryoshkaAdaptorModel.from_pretrained(
            model_name_or_path, cache_dir=cache_folder, use_safetensors=True, **hub_kwargs
        )
        return cls(adaptor, **config)


__all__ = ["MatryoshkaAdaptor"]
