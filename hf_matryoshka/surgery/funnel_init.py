"""A funnel that starts from principal components of the embeddings that it will be trained on."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ..data.embedding_rows import chunks
from ..data.principal_components import principal_components
from ..modeling import MatryoshkaFunnelConfig, MatryoshkaFunnelModel
from ..modeling.funnel_flow import FlowFunnel
from ..modeling.funnel_residual import ResidualFunnel


# A spread below this share of the largest is noise of rounding, and would be blown up by scaling.
LEAST_SPREAD = 1e-4


def init_funnel(
    embeddings: np.ndarray, config: MatryoshkaFunnelConfig | None = None, seed: int = 0, **options: Any
) -> MatryoshkaFunnelModel:
    """A new funnel, started from the embeddings.

    One of kind `"residual"` equals centred PCA at every level. A `"flow"` equals it, too, on the tangent space of the
    sphere at the mean direction. A `"cascade"` starts from random weights, as the original did.

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
    torch.manual_seed(seed)
    model = MatryoshkaFunnelModel(config)
    with torch.no_grad():
        _start(model, embeddings)
    return model.eval()


def _start(model: MatryoshkaFunnelModel, embeddings: np.ndarray) -> None:
    funnel, sphere = model.funnel, model.config.geometry == "sphere"

    def rows() -> Iterator[torch.Tensor]:
        return (F.normalize(chunk, dim=-1) if sphere else chunk for chunk in chunks(embeddings))

    if isinstance(funnel, ResidualFunnel):
        mean, basis, spread = principal_components(rows())
        count = model.config.latent_dim
        funnel.mean.copy_(mean)
        funnel.basis.copy_(basis[:count])
        funnel.scale.copy_(spread[:count].clamp_min(LEAST_SPREAD * spread[0]))
    elif isinstance(funnel, FlowFunnel):
        chart = funnel.chart
        mean = sum(chunk.double().sum(dim=0) for chunk in rows()) / len(embeddings)
        chart.origin.copy_(F.normalize(mean, dim=0) if sphere else mean)
        centre, basis, spread = principal_components(chart.tangents(chunk) for chunk in rows())
        if sphere:
            # No tangent vector has a component along the origin, which is therefore the last one.
            basis, spread = basis[:-1], spread[:-1]
            basis = torch.linalg.qr((basis - (basis @ chart.origin)[:, None] * chart.origin).T)[0].T
        chart.basis.copy_(basis)
        chart.centre.copy_(basis @ centre)
        chart.scale.copy_(spread.clamp_min(LEAST_SPREAD * spread[0]))
