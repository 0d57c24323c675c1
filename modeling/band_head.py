"""Nested sentence embeddings made of bands, each with its own pooling and projection."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from .nested_layers import NestedLinear


@dataclass
class PooledTokens:
    """Softmax-weighted sums of tokens, band by band, in the form that merges (online softmax, arXiv 1805.02867).

    Args:
        peak (`torch.Tensor` of shape `(batch, bands)`): The largest score so far.
        total (`torch.Tensor` of shape `(batch, bands)`): Sum of `exp(score - peak)`.
        weighted (`torch.Tensor` of shape `(batch, bands, hidden)`): Sum of `exp(score - peak)` times the token.
    """

    peak: torch.Tensor
    total: torch.Tensor
    weighted: torch.Tensor

    def merge(self, other: "PooledTokens") -> "PooledTokens":
        """Those of both parts of the tokens; associative."""
        peak = torch.maximum(self.peak, other.peak)
        # Of no token the peak is -inf, and so may both be.
        scales = [torch.exp(part.peak - peak).nan_to_num(0.0) for part in (self, other)]
        return PooledTokens(
            peak,
            sum(part.total * scale for part, scale in zip((self, other), scales, strict=True)),
            sum(part.weighted * scale[..., None] for part, scale in zip((self, other), scales, strict=True)),
        )


class BandPooling(nn.Module):
    """One learned query a band; starts as the mean of the tokens."""

    def __init__(self, hidden_size: int, bands: int):
        super().__init__()
        self.query = nn.Parameter(torch.empty(bands, hidden_size))
        self.scale = hidden_size**-0.5

    def forward(
        self,
        hidden_states: torch.Tensor,
        mask: torch.Tensor | None,
        bands: int,
        segments: torch.Tensor | None = None,
        num_segments: int = 0,
    ) -> PooledTokens:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(batch, length, hidden)`): Tokens.
            mask (`torch.Tensor` of shape `(batch, length)`, *optional*): 1 for text.
            bands (`int`): Leading bands to pool.
            segments (`torch.Tensor` of shape `(batch, length)`, *optional*): Which text a token is of, from 0: those
                of all rows are counted together, and the result has one entry a text.
            num_segments (`int`): How many texts there are.
        """
        tokens = hidden_states.float()
        pooled = []
        # Band by band, so that the numbers of a band do not depend on how many are asked for.
        for query in self.query[:bands].float():
            scores = (tokens @ query) * self.scale
            if mask is not None:
                scores = scores.masked_fill(mask == 0, -torch.inf)
            if segments is None:
                peak = scores.amax(dim=1)
                weights = torch.exp(scores - peak[:, None]).nan_to_num(0.0)
                pooled.append((peak, weights.sum(1), (weights[:, None] @ tokens)[:, 0]))
                continue
            index, flat = segments.flatten(), scores.flatten()
            peak = flat.new_full((num_segments,), -torch.inf).scatter_reduce(0, index, flat, "amax")
            weights = torch.exp(flat - peak[index]).nan_to_num(0.0)
            total = flat.new_zeros(num_segments).index_add(0, index, weights)
            weighted = flat.new_zeros(num_segments, tokens.shape[-1])
            pooled.append((peak, total, weighted.index_add(0, index, weights[:, None] * tokens.flatten(0, 1))))
        return PooledTokens(*(torch.stack(parts, dim=1) for parts in zip(*pooled, strict=True)))


class BandHead(nn.Module):
    """Projects each pooled band; the embedding of a dimension is what the bands up to it give, one after the other.

    So a small embedding is exactly the beginning of a large one, and costs the bands that it has.

    Args:
        hidden_size (`int`): Width of the tokens.
        bands (`list[int]`): Dimensions of each band.
    """

    def __init__(self, hidden_size: int, bands: list[int]):
        super().__init__()
        self.pooling = BandPooling(hidden_size, len(bands))
        self.projections = nn.ModuleList([NestedLinear(hidden_size, size, bias=False) for size in bands])

    def forward(self, pooled: PooledTokens) -> torch.Tensor:
        """The embeddings of as many bands as are pooled, `(batch, dim)`, not of unit length. That of no token is 0."""
        means = pooled.weighted / pooled.total.clamp_min(torch.finfo(torch.float32).tiny)[..., None]
        projections = self.projections[: means.shape[1]]
        parts = [layer(means[:, band].to(layer.weight.dtype)) for band, layer in enumerate(projections)]
        return torch.cat(parts, dim=-1)


def unit_length(embeddings: torch.Tensor, dim: int) -> torch.Tensor:
    """The leading dimensions, of unit length; 0 stays 0."""
    return F.normalize(embeddings[..., :dim].float(), dim=-1)


__all__ = ["BandHead", "PooledTokens", "unit_length"]
