"""Truncation of embeddings that were already trained as Matryoshka, as a sentence-transformers module."""

from typing import Any

import torch
from sentence_transformers.base.modules import Module
from torch.nn import functional as F

from .levels import check_matryoshka_dims, resolve_matryoshka_dim
from .st_repo_code import copy_code_to_root


class MatryoshkaTruncate(Module):
    """Cuts the sentence embedding to a trained prefix and brings it back to unit length.

    `truncate_dim` of sentence-transformers accepts any width and leaves the prefix shorter than unit length. This
    module accepts the trained widths only. The width is chosen per call: `model.encode(texts, matryoshka_dim=64)`.

    Args:
        matryoshka_dims (`list[int]`):
            The trained widths, strictly increasing.
        matryoshka_dim (`int`, *optional*):
            Width that calls without `matryoshka_dim` get; by default the largest. Of embeddings that are narrower (a
            level with a narrower residual stream), such calls get the largest trained width that fits.

    Raises:
        ValueError: If the widths do not increase or the default is not among them.
    """

    config_keys = ["matryoshka_dims", "matryoshka_dim"]
    forward_kwargs = {"matryoshka_dim"}

    def __init__(self, matryoshka_dims: list[int], matryoshka_dim: int | None = None):
        super().__init__()
        check_matryoshka_dims(matryoshka_dims)
        self.matryoshka_dims = list(matryoshka_dims)
        self.matryoshka_dim = resolve_matryoshka_dim(self.matryoshka_dims, matryoshka_dim)

    def forward(
        self, features: dict[str, torch.Tensor | Any], matryoshka_dim: int | None = None
    ) -> dict[str, torch.Tensor | Any]:
        """
        Args:
            features (`dict`): `"sentence_embedding"` of shape `(batch, width)` is replaced.
            matryoshka_dim (`int`, *optional*): One of the trained widths; by default the module's own.

        Returns:
            `dict`: The features, with `"sentence_embedding"` of shape `(batch, matryoshka_dim)` and unit length.

        Raises:
            ValueError: If the width was not trained or the embeddings are narrower than it.
        """
        embedding = features["sentence_embedding"]
        fitting = [dim for dim in self.matryoshka_dims if dim <= min(self.matryoshka_dim, embedding.shape[-1])]
        # Where none fits, the smallest is named in the error.
        default = fitting[-1] if fitting else self.matryoshka_dims[0]
        dim = resolve_matryoshka_dim(self.matryoshka_dims, default if matryoshka_dim is None else matryoshka_dim)
        if embedding.shape[-1] < dim:
            raise ValueError(f"the embeddings have width {embedding.shape[-1]}, so they cannot be cut to {dim}")
        features["sentence_embedding"] = F.normalize(embedding[..., :dim], dim=-1)
        return features

    def get_embedding_dimension(self) -> int:
        """Width of the embeddings that calls without `matryoshka_dim` get."""
        return self.matryoshka_dim

    # The former name, which others still call; the one that sentence-transformers supplies warns.
    get_sentence_embedding_dimension = get_embedding_dimension

    def save(self, output_path: str, *args, safe_serialization: bool = True, **kwargs) -> None:
        """Write the config, and the code to the root of the repo."""
        self.save_config(output_path)
        copy_code_to_root(self, output_path)


__all__ = ["MatryoshkaTruncate"]
