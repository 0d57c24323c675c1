"""The Matryoshka-Adaptor as a sentence-transformers module."""

from typing import Any

import torch

from .modeling_matryoshka_adaptor import MatryoshkaAdaptorModel
from .st_vector_module import NestedVectorModule


class MatryoshkaAdaptor(NestedVectorModule):
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

    model_class = MatryoshkaAdaptorModel

    def __init__(self, adaptor: MatryoshkaAdaptorModel, matryoshka_dim: int | None = None):
        super().__init__(adaptor, matryoshka_dim)

    @property
    def adaptor(self) -> MatryoshkaAdaptorModel:
        """The trained adaptor."""
        return self.model

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


__all__ = ["MatryoshkaAdaptor"]
