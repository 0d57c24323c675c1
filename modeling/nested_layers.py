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

    def forward(
        self, input: torch.Tensor, rows: int | None = None, row_slot: int = 0, column_slot: int = 0
    ) -> torch.Tensor:
        """
        Args:
            input (`torch.Tensor` of shape `(..., columns)`): `columns` may be smaller than `in_features`: the leading
                columns of the weight are used.
            rows (`int`, *optional*): Number of leading output features to compute; all of them by default.
            row_slot, column_slot (`int`, *optional*, default to 0): Instead of the leading rows (columns) those after
                so many times as many.

        Returns:
            `torch.Tensor` of shape `(..., rows)`.
        """
        columns = input.shape[-1]
        if rows is None and columns == self.in_features:
            return F.linear(input, self.weight, self.bias)
        if row_slot or column_slot:
            own = slice(row_slot * rows, (row_slot + 1) * rows)
            weight = self.weight[own, column_slot * columns : (column_slot + 1) * columns]
            return F.linear(input, weight, None if self.bias is None else self.bias[own])
        bias = None if self.bias is None else self.leading_rows(self.bias, rows)
        return F.linear(input, self.leading_rows(self.weight, rows)[:, :columns], bias)

    def leading_rows(self, tensor: torch.Tensor, rows: int | None) -> torch.Tensor:
        """The rows of `tensor` (of shape `(out_features, ...)`) that belong to the leading output features."""
        return tensor[:rows]


class ZeroStartLinear(NestedLinear):
    """A nested linear layer that starts at zero.

    What a layer starts as is said by its class: `_init_weights` of a model never sees a module that holds no weights
    of its own. The model's `_init_weights` sets the weight.
    """


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

    def forward(self, input: torch.Tensor, columns: int | None = None, slot: int = 0) -> torch.Tensor:
        """
        Args:
            input (`torch.LongTensor`): Indices.
            columns (`int`, *optional*): Number of leading features to return; all of them by default.
            slot (`int`, *optional*, defaults to 0): Instead of the leading features those after so many times as many.

        Returns:
            `torch.Tensor` of shape `(*input.shape, columns)`.
        """
        table = self.weight[:, slot * columns : (slot + 1) * columns] if slot else self.weight[:, :columns]
        return F.embedding(input, table, self.padding_idx)


class NestedLayerNorm(nn.LayerNorm):
    """Layer norm over however many leading features the input has, with its statistics taken over those.

    Args:
        levels (`int`, *optional*, defaults to 0): Where there are any, each has what it adds to the gain, and to the
            bias if there is one, in `level_weight` and `level_bias` of shape `(levels, normalized_shape)`, 0 at first.
    """

    def __init__(self, normalized_shape: int, eps: float = 1e-5, bias: bool = True, levels: int = 0):
        super().__init__(normalized_shape, eps=eps, bias=bias)
        shape = (levels, normalized_shape)
        self.level_weight = nn.Parameter(torch.zeros(shape)) if levels else None
        self.level_bias = nn.Parameter(torch.zeros(shape)) if levels and bias else None

    def forward(self, input: torch.Tensor, level: int = -1) -> torch.Tensor:
        """
        Args:
            level (`int`, *optional*, defaults to -1): Index of the level whose gain and bias are taken, where they
                differ.
        """
        width = input.shape[-1]
        weight = _of_level(self.weight, self.level_weight, level, width)
        bias = None if self.bias is None else _of_level(self.bias, self.level_bias, level, width)
        return F.layer_norm(input, (width,), weight, bias, self.eps)


def _of_level(shared: torch.Tensor, own: torch.Tensor | None, level: int, width: int) -> torch.Tensor:
    return shared[:width] if own is None else shared[:width] + own[level, :width]


def gate_columns(input: torch.Tensor, start: int, gate: torch.Tensor | None) -> torch.Tensor:
    """`input` with its features from `start` on multiplied by a scalar; as it is without a gate or such features."""
    if gate is None or input.shape[-1] <= start:
        return input
    return torch.cat((input[..., :start], gate * input[..., start:]), dim=-1)


class NestedRMSNorm(nn.RMSNorm):
    """RMS norm over however many leading features the input has, with its statistics taken over those."""

    def __init__(self, normalized_shape: int, eps: float = 1e-6):
        super().__init__(normalized_shape, eps=eps)

    def forward(self, input: torch.Tensor, slot: int = 0) -> torch.Tensor:
        """
        Args:
            slot (`int`, *optional*, defaults to 0): Instead of the leading gains those after so many times as many.
        """
        width = input.shape[-1]
        return F.rms_norm(input, (width,), self.weight[slot * width : (slot + 1) * width], self.eps)


class NestedGroupRMSNorm(NestedRMSNorm):
    """RMS norm of each group of neighbouring features on its own, over as many whole groups as the input has.

    Args:
        group_size (`int`): Features of a group.
    """

    def __init__(self, normalized_shape: int, group_size: int, eps: float = 1e-6):
        super().__init__(normalized_shape, eps=eps)
        self.group_size = group_size

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        groups = input.unflatten(-1, (-1, self.group_size))
        return F.rms_norm(groups, (self.group_size,), eps=self.eps).flatten(-2) * self.weight[: input.shape[-1]]


class Glue(NestedLinear):
    """A square linear map between two layers, the identity at first; it can be folded into either of them."""

    def __init__(self, features: int):
        super().__init__(features, features, bias=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input, input.shape[-1])
