"""Delta packs: the coefficients of delta dictionary sharing as a file, and how they become dense weights again."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from .dds_bank import (
    FORMAT_VERSION,
    check_atoms,
    encoder_prefix,
    join_name,
    random_atoms,
    read_bank,
    read_tensors,
    tensor_bytes,
    tensors_sha256,
    write_tensors,
)
from .dds_layer import DdsLinear, mix_atoms, row_blocks


if TYPE_CHECKING:
    from .dds_model import DdsModel

PACK_FORMAT = "delta_pack"
DTYPES = (torch.float16, torch.float32)


class PackedTarget(NamedTuple):
    """The layers of a target, by number, and the sizes of its atoms."""

    numbers: list[str]
    rows: int
    columns: int
    rank: int


@dataclass(frozen=True, eq=False)
class DeltaPack:
    """What one adapter of [`DdsModel`] learned beside its bank.

    Args:
        coefficients (`torch.Tensor` of shape `(layers, atoms)`): Those of all layers, target by target.
        private (`torch.Tensor`, *optional*): `P` and `Q` of one layer after the other, flat, in the same order.
        targets (`dict[str, PackedTarget]`): The layers.
        private_rank (`int`): Rank of the private remainders, 0 without.
        base_sha256 (`str`): Of the weights that the pack changes, and of the rest of the encoder.
        bank_sha256 (`str`): Of the bank.
        bank_bytes (`int`): Bytes of the bank's tensors.
        bank_seed (`int`): What random atoms were drawn from, in case that they are the bank.
    """

    coefficients: torch.Tensor
    private: torch.Tensor | None
    targets: dict[str, PackedTarget]
    private_rank: int
    base_sha256: str
    bank_sha256: str
    bank_bytes: int
    bank_seed: int

    @property
    def pack_bytes(self) -> int:
        """Bytes of the file."""
        return len(self.to_bytes())

    def to_bytes(self) -> bytes:
        """The file."""
        metadata = {
            "format": PACK_FORMAT,
            "format_version": FORMAT_VERSION,
            "base_sha256": self.base_sha256,
            "bank_sha256": self.bank_sha256,
            "bank_bytes": self.bank_bytes,
            "bank_seed": self.bank_seed,
            "private_rank": self.private_rank,
            "targets": json.dumps(self.targets, separators=(",", ":")),
        }
        tensors = {"coefficients": self.coefficients} | ({} if self.private is None else {"private": self.private})
        return tensor_bytes(tensors, metadata)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the file."""
        write_tensors(path, self.to_bytes())

    @classmethod
    def load(cls, path: str | os.PathLike) -> "DeltaPack":
        """Reads a file.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is no delta pack, or of a newer format.
        """
        tensors, metadata = read_tensors(path, PACK_FORMAT, "export_delta_pack")
        targets = json.loads(metadata["targets"])
        return cls(
            tensors["coefficients"],
            tensors.get("private"),
            {target: PackedTarget(*fields) for target, fields in targets.items()},
            **{name: metadata[name] for name in ("base_sha256", "bank_sha256")},
            **{name: int(metadata[name]) for name in ("private_rank", "bank_bytes", "bank_seed")},
        )

    def layer_names(self) -> list[tuple[str, str]]:
        """Target and name of each layer, in the order of the coefficients."""
        return [(target, join_name(target, number)) for target, packed in self.targets.items() for number in packed[0]]


def make_delta_pack(model: "DdsModel", adapter_name: str, dtype: torch.dtype) -> DeltaPack:
    """What [`DdsModel.export_delta_pack`] gives."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be torch.float16 or torch.float32, but is {dtype}")
    config = model.peft_config[adapter_name]
    if config.modules_to_save:
        raise ValueError(
            f"a delta pack holds no whole layers, but adapter {adapter_name!r} has modules_to_save "
            f"({', '.join(sorted(config.modules_to_save))}); save it with save_pretrained"
        )
    targets, coefficients, private = {}, [], []
    for target, layers in model.dds_layers(adapter_name).items():
        atoms = model.dds_bank.get(target, adapter_name)
        rows, _, rank = atoms.left.shape
        targets[target] = PackedTarget(list(layers), rows, atoms.right.shape[0], rank)
        for layer in layers.values():
            if layer.merged:
                raise ValueError("adapters are merged, so the base weights are not there; call unmerge_adapter first")
            coefficients.append(layer.dds_coefficients[adapter_name])
            if config.private_rank:
                private += [layer.dds_private_left[adapter_name], layer.dds_private_right[adapter_name]]
    bank = model.bank_tensors(adapter_name)
    prefix = encoder_prefix(model.model)
    names = [name for name, module in model.model.named_modules() if isinstance(module, DdsLinear)]
    return DeltaPack(
        _rounded(torch.stack(coefficients), dtype),
        _rounded(torch.cat([part.flatten() for part in private]), dtype) if private else None,
        targets,
        config.private_rank,
        _base_sha256(model.model, names, prefix),
        tensors_sha256(bank),
        sum(tensor.nbytes for tensor in bank.values()),
        config.bank_seed,
    )


def _rounded(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    rounded = values.detach().cpu().to(dtype)
    if not torch.isfinite(rounded).all():
        raise ValueError(
            f"the adapter has a value of {values.abs().max():.3g}, which does not fit {dtype}; use torch.float32, or "
            "train again if it is not finite"
        )
    return rounded


def _base_sha256(model: nn.Module, targets: Iterable[str], prefix: str) -> str:
    """Of the encoder of a model, and of the target layers outside of it; adapters are not part of it.

    A pooler belongs to the head, which differs from class to class.
    """
    targets = set(targets)
    wrapped = {name for name, module in model.named_modules() if isinstance(module, DdsLinear)}
    tensors = {}
    for name, tensor in model.state_dict().items():
        owner, _, leaf = name.rpartition(".base_layer.")
        if owner in wrapped:
            name = f"{owner}.{leaf}"
        elif any(name.startswith(f"{layer}.") for layer in wrapped):
            continue
        inside = name.startswith(prefix) and not name.removeprefix(prefix).startswith("pooler.")
        if inside or name.rpartition(".")[0] in targets:
            tensors[name.removeprefix(prefix)] = tensor
    return tensors_sha256(tensors)


@torch.no_grad()
def apply_delta_pack(
    model: nn.Module,
    pack: DeltaPack | str | os.PathLike,
    bank: str | os.PathLike | Mapping[str, torch.Tensor] | None = None,
) -> nn.Module:
    """Folds a delta pack into the dense weights of the model that it was trained on.

    What comes out is what `merge_and_unload` gives once the values of the adapter are rounded to the precision of the
    pack, bit for bit on the same machine; on another one sums of products may round otherwise. The model may have
    another head than the one that was trained.

    Args:
        model (`torch.nn.Module`): The base model; it is changed.
        pack ([`DeltaPack`], `str` or `os.PathLike`): The pack, or its file.
        bank (`str`, `os.PathLike` or `Mapping`, *optional*): The bank, or its file (`save_bank`); not needed if its
            atoms are the random ones of the seed.

    Returns:
        `torch.nn.Module`: The model.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If the pack is for another base or another bank, is of a newer format, or holds atoms whose shapes
            do not fit.
    """
    pack = pack if isinstance(pack, DeltaPack) else DeltaPack.load(pack)
    layers = _find_layers(model, pack)
    tensors = _find_bank(pack, bank)
    atoms = {}
    num_atoms, private, changes = pack.coefficients.shape[1], pack.private, []
    for target, packed in pack.targets.items():
        shapes = [(size, num_atoms, packed.rank) for size in (packed.rows, packed.columns)]
        atoms[target] = check_atoms(tensors, target, *shapes)
    # First what each layer gets, then the changes: nothing is half done if something does not fit.
    for ((target, name), layer), coefficients in zip(layers.items(), pack.coefficients, strict=True):
        packed, own = pack.targets[target], None
        if layer.out_features > packed.rows or layer.in_features > packed.columns:
            raise ValueError(
                f"the atoms of {target} have {packed.rows} rows and {packed.columns} columns, but layer {name} has "
                f"{layer.out_features} and {layer.in_features}; use the model that the pack was trained on"
            )
        if pack.private_rank:
            rank = min(pack.private_rank, layer.out_features, layer.in_features)
            sizes = [layer.out_features * rank, layer.in_features * rank]
            left, right, private = private.split([*sizes, len(private) - sum(sizes)])
            own = left.view(-1, rank), right.view(-1, rank)
        changes.append((layer, target, coefficients, own))
    for layer, target, coefficients, own in changes:
        device, shape = layer.weight.device, tuple(layer.weight.shape)
        if own is not None:
            own = tuple(part.to(device, torch.float32) for part in own)
        coefficients = coefficients.to(device, torch.float32)
        layer.weight.data += mix_atoms(*atoms[target], coefficients, own, shape, row_blocks(layer))
    return model


def _find_layers(model: nn.Module, pack: DeltaPack) -> dict[tuple[str, str], nn.Linear]:
    """The layers that a pack changes, of a model that is its base."""
    modules, prefix, layers = dict(model.named_modules()), encoder_prefix(model), {}
    for target, name in pack.layer_names():
        path = f"{prefix}{name}" if f"{prefix}{name}" in modules else name
        if not isinstance(modules.get(path), nn.Linear):
            raise ValueError(
                f"the delta pack changes the linear layer {name}, which this {type(model).__name__} does not have; it "
                "is for another base"
            )
        layers[target, path] = modules[path]
    found = _base_sha256(model, [path for _, path in layers], prefix)
    if found != pack.base_sha256:
        raise ValueError(
            f"the delta pack is for a base with the sha256 {pack.base_sha256[:12]}…, but this {type(model).__name__} "
            f"has {found[:12]}…; load the checkpoint that it was trained on, in the same dtype"
        )
    return layers


def _find_bank(
    pack: DeltaPack, bank: str | os.PathLike | Mapping[str, torch.Tensor] | None
) -> Mapping[str, torch.Tensor]:
    if bank is None:
        tensors = {}
        for target, packed in pack.targets.items():
            shape, num_atoms = (packed.rows, packed.columns), pack.coefficients.shape[1]
            atoms = random_atoms(target, shape, num_atoms, packed.rank, pack.bank_seed)
            tensors |= {f"{target}.left": atoms[0], f"{target}.right": atoms[1]}
    else:
        tensors = read_bank(bank)
    found = tensors_sha256(tensors)
    if found != pack.bank_sha256:
        given = "the random atoms of its seed have" if bank is None else "this one has"
        raise ValueError(
            f"the delta pack is for a bank with the sha256 {pack.bank_sha256[:12]}…, but {given} {found[:12]}…; give "
            "the file of the bank that it was trained with"
        )
    return tensors
