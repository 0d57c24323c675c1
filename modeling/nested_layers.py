"""Layers whose small versions are leading slices of the large one.

Every layer slices inside its own `forward`. Slicing `layer.weight[:k]` from outside would bypass whatever wraps the
layer (LoRA, hooks, quantisation) without any error.
"""

import torch
from torch import nn
from torch.nn import functional as F


class NestedLinear(nn.Linear):
    """A linear layer that can be run with its leading rows and columns only.

    With `rows=None` and a full-width input it is `torch.nn.Linear`.
    """

    def forward(self, input: torch.Tensor, rows: int | None = None) -> torch.Tensor:
        """
        Args:
            input (`torch.Tensor` of shape `(..., columns)`): `columns` may be smaller than `in_features`: the leading
                columns of the weight are used.
            rows (`int`, *optional*): Number of leading output features to compute; all of them by default.

        Returns:
            `torch.Tensor` of shape `(..., rows)`.
        """
        columns = input.shape[-1]
        if rows is None and columns == self.in_features:
            return F.linear(input, self.weight, self.bias)
        bias = None if self.bias is None else self.leading_rows(self.bias, rows)
        return F.linear(input, self.leading_rows(self.weight, rows)[:, :columns], bias)

    def leading_rows(self, tensor: torch.Tensor, rows: int | None) -> torch.Tensor:
        """The rows of `tensor` (of shape `(out_features, ...)`) that belong to the leading output features."""
        return tensor[:rows]


class NestedBlockLinear(NestedLinear):
    """Several linear layers of equal shape in one weight, one below the other, each cut to its own leading rows.

    Fused projections are such: query, key and value, or the two halves of a gated feed-forward network.

    Args:
        blocks (`int`): Number of layers in one; `out_features` is a multiple of it.
    """

    def __init__(self, in_features: int, out_features: int, blocks: int, bias: bool = True):
        super().__init__(in_features, out_features, bias=bias)
        self.blocks = blocks

    def leading_rows(self, tensor: torch.Tensor, rows: int | None) -> torch.Tensor:
        """As in [`NestedLinear`], but `rows` counts those of each block."""
        if rows is None or rows * self.blocks == tensor.shape[0]:
            return tensor
        return tensor.unflatten(0, (self.blocks, -1))[:, :rows].flatten(0, 1)


class NestedEmbedding(nn.Embedding):
    """An embedding table that can be read at its leading columns only."""

    def forward(self, input: torch.Tensor, columns: int | None = None) -> torch.Tensor:
        """
        Args:
            input (`torch.LongTensor`): Indices.
            columns (`int`, *optional*): Number of leading features to return; all of them by default.

        Returns:
            `torch.Tensor` of shape `(*input.shape, columns)`.
        """
        return F.embedding(input, self.weight[:, :columns], self.padding_idx)


class NestedLayerNorm(nn.LayerNorm):
    """Layer norm over however many leading features the input has, with its statistics taken over those."""

    def __init__(self, normalized_shape: int, eps: float = 1e-5, bias: bool = True):
        super().__init__(normalized_shape, eps=eps, bias=bias)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        width = input.shape[-1]
        bias = None if self.bias is None else self.bias[:width]
        return F.layer_norm(input, (width,), self.weight[:width], bias, self.eps)


class NestedRMSNorm(nn.RMSNorm):
    """RMS norm over however many leading features the input has, with its statistics taken over those."""

    def __init__(self, normalized_shape: int, eps: float = 1e-6):
        super().__init__(normalized_shape, eps=eps)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        width = input.shape[-1]
        return F.rms_norm(input, (width,), self.weight[:width], self.eps)
