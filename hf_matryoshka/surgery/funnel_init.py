"""A funnel that starts from principal components of the embeddings that it will be trained on."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ..data.embedding_rows import chunks
from ..data.principal_components import principal_components
from ..modeling import MatryoshkaFunnelConfig, MatryoshkaFunnelModel


# A spread below this share of the largest is that of a direction which the embeddings do not fill.
LEAST_SPREAD = 1e-3


def init_funnel(
    embeddings: np.ndarray, config: MatryoshkaFunnelConfig | None = None, seed: int = 0, **options: Any
) -> MatryoshkaFunnelModel:
    """A new funnel, started from the embeddings.

    One of kind `"residual"` equals centred PCA at every level, its latents but for one factor. A `"flow"` equals it,
    too, on the tangent space of the sphere at the mean direction. A `"cascade"` starts from random weights, as the
    original did.

    Args:
        embeddings (`np.ndarray` of shape `(texts, embedding_dim)`): They are read in chunks; at least two.
        config ([`MatryoshkaFunnelConfig`], *optional*): The shape; by default made of `options`.
        seed (`int`, *optional*, defaults to 0): Of the random weights.
        options: Fields of the config.

    Returns:
        [`MatryoshkaFunnelModel`]: In evaluation mode.

    Raises:
        ValueError: If the embeddings are too few, of another width than the config says, or hold NaN or infinity.
    """
    if embeddings.ndim != 2 or len(embeddings) < 2:
        raise ValueError(f"embeddings of shape {embeddings.shape} cannot start a funnel; give at least two vectors")
    if config is None:
        config = MatryoshkaFunnelConfig(**{"embedding_dim": embeddings.shape[1], **options})
    if embeddings.shape[1] != config.embedding_dim:
        raise ValueError(
            f"the embeddings have width {embeddings.shape[1]}, but the funnel takes {config.embedding_dim}"
        )
    if config.geometry == "sphere" and "embedding_norm" not in options:
        lengths = [torch.linalg.vector_norm(chunk, dim=-1).double().sum() for chunk in chunks(embeddings)]
        config.embedding_norm = float(sum(lengths) / len(embeddings))
    rows = _Rows(embeddings, config.geometry == "sphere")
    start = _flow_start(config, rows) if config.kind == "flow" else {}
    torch.manual_seed(seed)
    model = MatryoshkaFunnelModel(config)
    with torch.no_grad():
        if config.kind == "residual":
            start = _residual_start(config, rows)
        for name, values in start.items():
            model.get_buffer(f"funnel.{name}").copy_(values)
            if name.endswith("scale"):
                model.latent_scale.copy_((values / values[0])[: config.stage_dims[-1]])
    return model.eval()


class _Rows:
    """Embeddings in chunks, as often as they are asked for; on the sphere of unit length."""

    def __init__(self, embeddings: np.ndarray, sphere: bool):
        self.embeddings, self.sphere = embeddings, sphere

    def __iter__(self) -> Iterator[torch.Tensor]:
        found = chunks(self.embeddings)
        return (F.normalize(chunk, dim=-1) for chunk in found) if self.sphere else found


def _residual_start(config: MatryoshkaFunnelConfig, rows: _Rows) -> dict[str, torch.Tensor]:
    mean, basis, spread = principal_components(rows)
    scale = spread.clamp_min(LEAST_SPREAD * spread[0])
    return {"mean": mean, "basis": basis[: config.latent_dim], "scale": scale[: config.latent_dim]}


def _flow_start(config: MatryoshkaFunnelConfig, rows: _Rows) -> dict[str, torch.Tensor]:
    """Where the chart lies; sets how many dimensions it has unless that was said."""
    mean = sum(chunk.double().sum(dim=0) for chunk in rows) / len(rows.embeddings)
    origin = (F.normalize(mean, dim=0) if rows.sphere else mean).float()
    centre, basis, spread = principal_components(
        _log_map(chunk, origin) if rows.sphere else chunk - origin for chunk in rows
    )
    if rows.sphere:
        # No tangent vector has a component along the origin, which is therefore the last one.
        basis, spread = basis[:-1], spread[:-1]
        basis = torch.linalg.qr((basis - (basis @ origin)[:, None] * origin).T)[0].T
    if config.intrinsic_dim is None:
        filled = int((spread >= LEAST_SPREAD * spread[0]).sum())
        config.intrinsic_dim = max(filled, config.stage_dims[-1], 2)
    basis, spread = basis[: config.intrinsic_dim], spread[: config.intrinsic_dim]
    scale = spread.clamp_min(LEAST_SPREAD * spread[0])
    return {
        f"chart.{name}": value
        for name, value in {"origin": origin, "basis": basis, "centre": basis @ centre, "scale": scale}.items()
    }


def _log_map(vectors: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
    """Tangent vectors at the unit vector `origin` that lead to unit vectors, both `(n, dim)`."""
    along = vectors @ origin
    across = vectors - along[:, None] * origin
    length = across.norm(dim=-1).clamp_min(1e-12)
    return across * (torch.atan2(length, along) / length)[:, None]
