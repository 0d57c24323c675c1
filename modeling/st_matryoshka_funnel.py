"""The Matryoshka funnel as a sentence-transformers module."""

from typing import Any

import torch

from .levels import resolve_matryoshka_dim
from .modeling_matryoshka_funnel import MatryoshkaFunnelModel
from .st_vector_module import NestedVectorModule


OUTPUTS = ("latent", "reconstruction")


class MatryoshkaFunnel(NestedVectorModule):
    """Encodes the sentence embedding of the modules before it into the latent of a funnel.

    The width is chosen per call: `model.encode(texts, matryoshka_dim=32)` gives 32 numbers a text, and with
    `output="reconstruction"` what these 32 numbers are decoded to, an embedding of full width.

    A latent is no unit vector, and its decoder needs it as it is. Latents are compared by their cosine.

    Args:
        funnel ([`MatryoshkaFunnelModel`]):
            The trained funnel.
        matryoshka_dim (`int`, *optional*):
            Width that calls without `matryoshka_dim` get; by default the largest.

    Raises:
        ValueError: If the width was not trained.
    """

    model_class = MatryoshkaFunnelModel
    forward_kwargs = {"matryoshka_dim", "output"}

    def __init__(self, funnel: MatryoshkaFunnelModel, matryoshka_dim: int | None = None):
        super().__init__(funnel, matryoshka_dim)

    @property
    def funnel(self) -> MatryoshkaFunnelModel:
        """The trained funnel, which also decodes, completes and whitens latents."""
        return self.model

    def forward(
        self, features: dict[str, torch.Tensor | Any], matryoshka_dim: int | None = None, output: str = "latent"
    ) -> dict[str, torch.Tensor | Any]:
        """
        Args:
            features (`dict`): `"sentence_embedding"` of shape `(batch, embedding_dim)` is replaced.
            matryoshka_dim (`int`, *optional*): One of the trained widths; by default the module's own.
            output (`str`, *optional*, defaults to `"latent"`): `"latent"`, or `"reconstruction"` for what the latent
                is decoded to.

        Returns:
            `dict`: The features, with `"sentence_embedding"` of shape `(batch, matryoshka_dim)`, or `(batch,
            embedding_dim)` for reconstructions.

        Raises:
            ValueError: If the width was not trained, there is no such output, or the embeddings have another width or
                hold NaN or infinity.
        """
        if output not in OUTPUTS:
            raise ValueError(f"output {output!r} does not exist; choose one of {', '.join(OUTPUTS)}")
        dim = self.matryoshka_dim if matryoshka_dim is None else matryoshka_dim
        stage = self.matryoshka_dims.index(resolve_matryoshka_dim(self.matryoshka_dims, dim))
        # The modules before it may run in half precision.
        latents = self.funnel.encode(features["sentence_embedding"].to(self.funnel.dtype), stage)
        features["sentence_embedding"] = latents if output == "latent" else self.funnel.decode(latents)
        return features


__all__ = ["MatryoshkaFunnel"]
