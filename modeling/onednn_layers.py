"""Linear layers for inference on a CPU, computed by oneDNN in float32.

torch gives float32 products to MKL, which on AMD CPUs does not use AVX-512; oneDNN does.
"""

import copy
from typing import NoReturn

import torch
from torch import nn
from torch.nn import functional as F

from .nested_layers import NestedLinear
from .nested_model import NestedModelMixin


class OneDnnLinear(nn.Module):
    """A linear layer of one size, for inference: it has no parameters, and cannot be saved or copied.

    Args:
        layer (`nn.Linear`): The layer, on a CPU, in float32.
    """

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.blocks = getattr(layer, "blocks", 1)
        self.weight = layer.weight.detach().to_mkldnn()
        self.bias = None if layer.bias is None else layer.bias.detach().to_mkldnn()

    def forward(self, input: torch.Tensor, rows: int | None = None) -> torch.Tensor:
        """
        Args:
            input (`torch.Tensor` of shape `(..., in_features)`): What the layer reads.
            rows (`int`, *optional*): As in [`NestedLinear`]; all of them.

        Returns:
            `torch.Tensor` of shape `(..., out_features)`.

        Raises:
            ValueError: If the input needs a gradient, or fewer rows or columns are asked for.
        """
        if input.shape[-1] != self.in_features or rows not in (None, self.out_features // self.blocks):
            raise ValueError(
                f"this layer computes {self.out_features} features of {self.in_features} and no smaller level, but "
                f"was asked for {rows or self.out_features} of {input.shape[-1]}; give with_onednn_linears the level"
            )
        if input.requires_grad and torch.is_grad_enabled():
            raise ValueError("layers of oneDNN are for inference: run the model under torch.no_grad()")
        output = F.linear(input.to(torch.float32).to_mkldnn(), self.weight, self.bias)
        return output.to_dense().to(input.dtype)

    def _refuse(self, *args: object) -> NoReturn:
        raise RuntimeError(
            "a model with layers of oneDNN can be neither saved nor copied; take the model that it was made from"
        )

    _save_to_state_dict = __deepcopy__ = __reduce__ = _refuse

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def with_onednn_linears(model: nn.Module, level: int | str | None = None) -> nn.Module:
    """A copy of a model for inference on a CPU in float32, its linear layers computed by oneDNN.

    How much faster it is depends on the CPU: on AMD ones with AVX-512 the products take less than half of the time,
    since MKL uses AVX2 there. It is no faster where MKL uses the same instructions.

    Args:
        model (`nn.Module`): A nested model, a `SentenceTransformer` around one, or any other model, such as a stock
            transformer. It is left alone.
        level (`int` or `str`, *optional*): The level of the nested model, the largest that the copy has and the only
            one that it computes; the largest of all by default.

    Returns:
        `nn.Module`: The copy, in evaluation mode, without gradients.

    Raises:
        ValueError: If the model is not on a CPU in float32, torch has no oneDNN, the level does not exist, or there is
            none to choose.
    """
    if not torch.backends.mkldnn.is_available():
        raise ValueError("this build of torch has no oneDNN")
    for name, tensor in model.named_parameters():
        if tensor.device.type != "cpu" or tensor.dtype != torch.float32:
            raise ValueError(
                f"layers of oneDNN compute in float32 on a CPU, but {name} is {tensor.dtype} on {tensor.device}"
            )
    if level is not None and not any(isinstance(module, NestedModelMixin) for module in model.modules()):
        raise ValueError(f"a {type(model).__name__} has no levels, but level is {level!r}")
    # A module of its own, so that the model itself can be replaced, too.
    holder = nn.ModuleList([copy.deepcopy(model)])
    _replace(holder, level)
    return holder[0].eval().requires_grad_(False)


def _replace(module: nn.Module, level: int | str | None) -> None:
    for name, child in module.named_children():
        if isinstance(child, NestedModelMixin):
            child = child.cut(level)
            setattr(module, name, child)
        # No other subclasses: attention of torch, for one, reads the weights of its own.
        if isinstance(child, NestedLinear) or type(child) is nn.Linear:
            setattr(module, name, OneDnnLinear(child))
        else:
            _replace(child, level)


__all__ = ["OneDnnLinear", "with_onednn_linears"]
