"""A linear layer whose change is a mixture of atoms that it shares with other layers."""

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import nn
from torch.nn import functional as F

from ..modeling.level_shards import leading_part
from .dds_config import DdsConfig


class Atoms(nn.Module):
    """The atoms `A_k = U_k V_k^T` of one target.

    Args:
        left (`torch.Tensor` of shape `(rows, atoms, rank)`): All `U_k`.
        right (`torch.Tensor` of shape `(columns, atoms, rank)`): All `V_k`.
    """

    def __init__(self, left: torch.Tensor, right: torch.Tensor):
        super().__init__()
        self.left = nn.Parameter(left)
        self.right = nn.Parameter(right)


def row_blocks(layer: nn.Linear) -> int:
    """How many layers lie one below the other in the weight of `layer`."""
    # By name: a model whose code came with its repo has its own copy of the nested layers.
    is_fused = any(cls.__name__ == "NestedBlockLinear" for cls in type(layer).__mro__)
    return layer.blocks if is_fused else 1


def mix_atoms(
    left: torch.Tensor,
    right: torch.Tensor,
    coefficients: torch.Tensor,
    private: tuple[torch.Tensor, torch.Tensor] | None,
    shape: tuple[int, int],
    blocks: int = 1,
) -> torch.Tensor:
    """The change of a weight, `sum_k c_k U_k V_k^T + P Q^T`, or the part of it that belongs to a leading slice.

    Args:
        left, right (`torch.Tensor`): As in [`Atoms`]; larger layers may share them.
        coefficients (`torch.Tensor` of shape `(atoms,)`): The `c_k`.
        private (`tuple[torch.Tensor, torch.Tensor]`, *optional*): `P` and `Q` of the layer.
        shape (`tuple[int, int]`): Rows, all blocks together, and columns of the slice.
        blocks (`int`, *optional*, defaults to 1): Blocks of rows, of each of which the leading ones are taken.

    Returns:
        `torch.Tensor` of shape `shape`.
    """
    # The layers of a target may lie on several devices.
    left, right = left.to(coefficients.device), right.to(coefficients.device)
    rows, columns = shape
    left = leading_part(left, (rows, *left.shape[1:]), blocks)
    change = (left * coefficients[:, None]).flatten(1) @ right[:columns].flatten(1).T
    if private is not None:
        change = change + leading_part(private[0], (rows, private[0].shape[1]), blocks) @ private[1][:columns].T
    return change


class DdsLinear(nn.Module, BaseTunerLayer):
    """A linear layer and, for each adapter, what [`DdsModel`] adds to its weight.

    Around a nested layer ([`~hf_matryoshka.modeling.nested_layers.NestedLinear`]) a level computes with the leading
    slice of the same change.

    Args:
        base_layer (`torch.nn.Linear`): The layer.
        adapter_name (`str`): Name of the first adapter.
        config ([`DdsConfig`]): Its options.
    """

    # The atoms have no prefix of PEFT: each layer refers to those of the model, which alone are saved and loaded.
    adapter_layer_names = ("dds_coefficients", "dds_private_left", "dds_private_right", "atoms")

    def __init__(self, base_layer: nn.Linear, adapter_name: str, config: DdsConfig):
        super().__init__()
        self.base_layer = base_layer
        self.blocks = row_blocks(base_layer)
        self.dds_coefficients = nn.ParameterDict()
        self.dds_private_left = nn.ParameterDict()
        self.dds_private_right = nn.ParameterDict()
        self.atoms = nn.ModuleDict()
        self.frozen_peft_weight_names = {}
        self.merged_adapters = []
        self._disable_adapters = False
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: DdsConfig) -> None:
        """Adds an adapter that changes nothing yet; its atoms come from the model."""
        out_features, in_features = self.base_layer.out_features, self.base_layer.in_features
        self.dds_coefficients[adapter_name] = nn.Parameter(torch.zeros(config.num_atoms))
        if config.private_rank:
            rank = min(config.private_rank, out_features, in_features)
            self.dds_private_left[adapter_name] = nn.Parameter(torch.zeros(out_features, rank))
            bound = in_features**-0.5  # as in LoRA
            self.dds_private_right[adapter_name] = nn.Parameter(torch.empty(in_features, rank).uniform_(-bound, bound))
        if not config.train_bank:
            self.frozen_peft_weight_names[adapter_name] = ("atoms",)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def _change(self, adapter_name: str, rows: int | None = None, columns: int | None = None) -> torch.Tensor:
        atoms, private = self.atoms[adapter_name], None
        if adapter_name in self.dds_private_left:
            private = self.dds_private_left[adapter_name], self.dds_private_right[adapter_name]
        shape = (
            self.base_layer.out_features if rows is None else rows * self.blocks,
            self.base_layer.in_features if columns is None else columns,
        )
        return mix_atoms(atoms.left, atoms.right, self.dds_coefficients[adapter_name], private, shape, self.blocks)

    @torch.no_grad()
    def get_delta_weight(self, adapter_name: str) -> torch.Tensor:
        """What an adapter adds to the weight."""
        return self._change(adapter_name)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Adds what adapters change to the weight.

        Args:
            safe_merge (`bool`, *optional*, defaults to `False`): Whether to check first that the sum is finite.
            adapter_names (`list[str]`, *optional*): Which; the active ones by default.

        Raises:
            ValueError: If the sum is not finite.
        """
        weight = self.base_layer.weight.data
        for name in check_adapters_to_merge(self, adapter_names):
            if name not in self.dds_coefficients:
                continue
            change = self.get_delta_weight(name)
            if safe_merge and not torch.isfinite(weight + change).all():
                raise ValueError(f"adapter {name!r} has values that are not finite, so it cannot be merged")
            weight += change
            self.merged_adapters.append(name)

    def unmerge(self) -> None:
        """Takes the merged adapters out of the weight again."""
        while self.merged_adapters:
            self.base_layer.weight.data -= self.get_delta_weight(self.merged_adapters.pop())

    def forward(self, x: torch.Tensor, rows: int | None = None) -> torch.Tensor:
        """
        Args:
            x (`torch.Tensor` of shape `(..., columns)`): The input; of a nested layer it may be narrower.
            rows (`int`, *optional*): Of a nested layer, how many leading output features to compute.
        """
        if self.disable_adapters and self.merged:
            self.unmerge()
        result = self.base_layer(x) if rows is None else self.base_layer(x, rows=rows)
        if self.disable_adapters or self.merged:
            return result
        for name in self.active_adapters:
            if name in self.dds_coefficients:
                change = self._change(name, rows, x.shape[-1])
                result = result + F.linear(self._cast_input_dtype(x, change.dtype), change).to(result.dtype)
        return result

    def __repr__(self) -> str:
        return "dds." + super().__repr__()
