"""Exports of the funnel: alone, or behind the base model whose embeddings it encodes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from ..modeling.modeling_matryoshka_funnel import MatryoshkaFunnelModel
from ..modeling.st_matryoshka_funnel import MatryoshkaFunnel
from .self_contained import append_modules
from .vector_exporter import VectorExporter


class FunnelExporter(VectorExporter):
    """One level of a funnel: the encoder to its latent and the decoder from it; always remote code.

    Args:
        model ([`MatryoshkaFunnelModel`]): The trained funnel.
        level, base, shard_by_level: See [`VectorExporter`]; the latents are compared by their cosine, whatever the
            base model says of its embeddings.
    """

    template = "funnel.md"
    module_class = MatryoshkaFunnel
    encode_kwargs = {"latents": {}, "reconstructions": {"output": "reconstruction"}}
    no_onnx = (
        "an ONNX export cuts embeddings and brings them to unit length, but the decoder of a funnel needs the length "
        "of a latent; leave onnx out"
    )

    def __init__(
        self,
        model: MatryoshkaFunnelModel,
        level: int | str | None,
        base: SentenceTransformer | None = None,
        shard_by_level: bool = False,
    ):
        if base is not None:
            base = append_modules(base, [])
            base.similarity_fn_name = "cosine"
        super().__init__(model, level, base, shard_by_level)

    def outputs(
        self, model: MatryoshkaFunnelModel, vectors: torch.Tensor, level: str | None
    ) -> dict[str, torch.Tensor]:
        found = model(vectors, level=level)
        # The whitened latent depends on every density that predicts a stage of it.
        return {
            "latents": found.latents,
            "reconstructions": found.reconstructions,
            "whitened latents": model.whiten(found.latents),
        }

    def _writer(self, form: str) -> Callable[[Path], None]:
        if form != "remote_code":
            raise ValueError(
                "a funnel encodes and decodes, for which neither transformers nor sentence-transformers has a class"
            )
        return self._remote_code_writer()

    def _sample_vectors(self) -> torch.Tensor:
        # Such as the funnel has learned, with a part that no latent holds: far away from them, the bijection of a
        # flow enlarges rounding.
        generator = torch.Generator().manual_seed(0)
        vectors = self._trained.decode(self._trained.sample(64, generator=generator)).float()
        noise = torch.randn(vectors.shape, generator=generator) / vectors.shape[-1] ** 0.5
        vectors = vectors + 0.3 * vectors.norm(dim=-1, keepdim=True) * noise
        # A funnel refuses NaN, but damaged weights are to show in what it computes.
        return vectors.nan_to_num()

    def onnx_model(self, form: str, folder: Path) -> Any:
        raise ValueError(self.no_onnx)

    def onnx_dims(self, form: str) -> list[int]:
        raise ValueError(self.no_onnx)

    def card_fields(self, form: str) -> dict[str, Any]:
        config = self.model.config
        small = self._trained if self.full else self._trained.cut(self.level)
        return {
            **super().card_fields(form),
            "geometry": config.geometry,
            "embedding_norm": config.embedding_norm,
            "convention": config.embedding_convention,
            "stage_dims": small.config.stage_dims,
            "parameters": small.num_parameters(),
        }
