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
        bias = None if self.bias is None else self.bias[:rows]
        return F.linear(input, self.weight[:rows, :columns], bias)


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
