"""The bank of atoms of delta dictionary sharing: where atoms start, their file, and the names of targets."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel


BANK_FORMAT = "dds_bank"
FORMAT_VERSION = 1
# A difference that is this much smaller than the largest is rounding.
SMALLEST_SPREAD = 1e-6


def encoder_prefix(model: nn.Module) -> str:
    """What stands before the names of the encoder's layers in a model with a head."""
    if isinstance(model, PreTrainedModel) and model.base_model is not model:
        return f"{model.base_model_prefix}."
    return ""


def split_name(name: str) -> tuple[str, str]:
    """The target that a layer belongs to, and which one it is of it.

    `"encoder.layer.3.attention.self.query"` is `"3"` of `"encoder.layer.*.attention.self.query"`.
    """
    parts = name.split(".")
    numbers = [part for part in parts if part.isdecimal()]
    return ".".join("*" if part.isdecimal() else part for part in parts), ".".join(numbers)


def join_name(target: str, number: str) -> str:
    """The name of a layer; undoes [`split_name`]."""
    numbers = iter(number.split("."))
    return ".".join(next(numbers) if part == "*" else part for part in target.split("."))


def random_atoms(
    target: str, shape: tuple[int, int], num_atoms: int, rank: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random atoms of Frobenius norm 1; they depend on nothing but the arguments.

    Args:
        target (`str`): The target, as in [`split_name`].
        shape (`tuple[int, int]`): Rows and columns of the largest of its weights.
        num_atoms, rank (`int`): How many atoms, and the rank of each, at most.
        seed (`int`): What they are drawn from, together with the target.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: `U` of shape `(rows, atoms, rank)` and `V` of shape
        `(columns, atoms, rank)`.
    """
    digest = hashlib.sha256(f"{seed} {target}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    left, right = (torch.randn(size, num_atoms, min(rank, *shape), generator=generator) for size in shape)
    # |U V^T|^2 is the inner product of the Gram matrices of U and V.
    grams = [torch.einsum("rki,rkj->kij", part, part) for part in (left, right)]
    scale = (grams[0] * grams[1]).sum(dim=(1, 2)) ** -0.25
    return left * scale[:, None], right * scale[:, None]


def principal_atoms(differences: torch.Tensor, num_atoms: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The principal matrices of differences of weights, by matrix PCA (as in MASA, arXiv 2508.04581, without the
    mean; Basis Sharing, arXiv 2410.03765, takes the SVD of weights side by side instead).

    With `D` the matrix whose rows are `vec(dW_1), …, vec(dW_n)` and `D = P S M^T` its SVD, the columns of `M` are
    principal matrices `M_1, M_2, …` of the shape of the weights, the most common first. Of each, the `rank` largest
    singular components make an atom, scaled to Frobenius norm 1. When there are more atoms than principal matrices,
    the next `rank` components of `M_1, M_2, …` follow, and so on.

    Args:
        differences (`torch.Tensor` of shape `(n, rows, columns)`): The `dW_i`.
        num_atoms, rank (`int`): As in [`random_atoms`].

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: `U` and `V` as in [`random_atoms`], with fewer atoms where the differences
        have no more.
    """
    _, *shape = differences.shape
    rank = min(rank, *shape)
    _, spread, directions = torch.linalg.svd(differences.flatten(1), full_matrices=False)
    directions = directions[spread > SMALLEST_SPREAD * spread[0]][:num_atoms].unflatten(1, tuple(shape))
    parts = [torch.linalg.svd(direction, full_matrices=False) for direction in directions]
    left, right = [], []
    for start in range(0, min(shape), rank):
        for rows, values, columns in parts:
            kept = values[start : start + rank]
            if len(left) < num_atoms and kept[0] > SMALLEST_SPREAD * values[0]:
                root = (kept / kept.norm()).sqrt()
                missing = (0, rank - len(kept))
                left.append(F.pad(rows[:, start : start + rank] * root, missing))
                right.append(F.pad(columns[start : start + rank].T * root, missing))
    if not left:
        return tuple(differences.new_empty(size, 0, rank) for size in shape)
    return torch.stack(left, dim=1), torch.stack(right, dim=1)


def init_bank_from_differences(
    model: PeftModel, others: Iterable[nn.Module], base: nn.Module | None = None, adapter_name: str | None = None
) -> None:
    """Makes the atoms of an adapter from what trainings changed: `dW` of every layer of every checkpoint, by
    [`principal_atoms`]. Random atoms stay where the differences have no more, or a target did not change.

    Args:
        model (`PeftModel`): A model with a [`DdsConfig`], before it is trained.
        others (`Iterable[torch.nn.Module]`): Trained copies of `base`; their head may be another.
        base (`torch.nn.Module`, *optional*): What they started from; the weights under the adapter by default.
        adapter_name (`str`, *optional*): The adapter; the active one by default.

    Raises:
        ValueError: If a layer is missing or has another shape, or nothing differs.
    """
    adapter_name = model.dds_adapter(adapter_name)
    config, bank = model.peft_config[adapter_name], model.bank_tensors(adapter_name)
    layers = {
        (target, join_name(target, number)): layer
        for target, found in model.dds_layers(adapter_name).items()
        for number, layer in found.items()
    }
    shapes = {name: tuple(layer.weight.shape) for (_, name), layer in layers.items()}
    if base is None:
        start = {name: layer.weight.detach().to("cpu", torch.float32) for (_, name), layer in layers.items()}
    else:
        start = _weights(base, shapes, "base")
    differences: dict[str, list[torch.Tensor]] = {}
    for number, other in enumerate(others):
        trained = _weights(other, shapes, f"others[{number}]")
        for (target, name), layer in layers.items():
            shape = bank[f"{target}.left"].shape[0], bank[f"{target}.right"].shape[0]
            padded = _padded(trained[name] - start[name], shape, layer.blocks)
            differences.setdefault(target, []).append(padded)
    changed = {target: torch.stack(found) for target, found in differences.items() if any(map(torch.any, found))}
    if not changed:
        raise ValueError("others do not differ from base in any layer of the adapter; give trained copies of base")
    for target, found in changed.items():
        for side, atoms in zip(("left", "right"), principal_atoms(found, config.num_atoms, config.rank), strict=True):
            bank[f"{target}.{side}"] = torch.cat((atoms, bank[f"{target}.{side}"][:, atoms.shape[1] :]), dim=1)
    model.load_bank(bank, adapter_name)


def _weights(model: nn.Module, shapes: Mapping[str, tuple[int, int]], label: str) -> dict[str, torch.Tensor]:
    """The weights of the layers of a checkpoint, which are in its encoder or in its head."""
    parameters, prefix, weights = dict(model.named_parameters()), encoder_prefix(model), {}
    for name, shape in shapes.items():
        weight = parameters.get(f"{prefix}{name}.weight", parameters.get(f"{name}.weight"))
        if weight is None or tuple(weight.shape) != shape:
            found = "it does not exist" if weight is None else f"it has {tuple(weight.shape)}"
            raise ValueError(
                f"layer {name} has a weight of shape {shape} in the adapted model, but in {label} {found}; give "
                "checkpoints of the same architecture and sizes"
            )
        weights[name] = weight.detach().to("cpu", torch.float32)
    return weights


def _padded(tensor: torch.Tensor, shape: tuple[int, int], blocks: int) -> torch.Tensor:
    """`tensor` with zeros to its right and below each of its blocks."""
    rows = tensor.unflatten(0, (blocks, -1))
    missing = (0, shape[1] - tensor.shape[1], 0, shape[0] // blocks - rows.shape[1])
    return F.pad(rows, missing).flatten(0, 1)


def tensors_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """Hexadecimal sha256 over names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def tensor_bytes(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> bytes:
    """A safetensors file; safetensors itself writes metadata in another order each time."""
    data = safetensors.torch.save(dict(tensors), {name: str(value) for name, value in metadata.items()})
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def write_tensors(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file that appears only when it is whole."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(path: str | os.PathLike, kind: str, made_by: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a file.

    Args:
        path (`str` or `os.PathLike`): The file.
        kind (`str`): Its format, as its metadata name it.
        made_by (`str`): What writes such files, for messages.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is another one, or has a newer format.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path} does not exist; give a file that {made_by} wrote")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is no file that {made_by} wrote ({error})") from error
    if metadata.get("format") != kind:
        raise ValueError(f"{path} is no file that {made_by} wrote")
    if int(metadata["format_version"]) > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {metadata['format_version']}, but this version of hf_matryoshka reads up to "
            f"{FORMAT_VERSION}; update hf_matryoshka"
        )
    return tensors, metadata


def write_bank(path: str | os.PathLike, bank: Mapping[str, torch.Tensor]) -> None:
    """Writes a bank: `<target>.left` and `<target>.right` of every target, as in [`Atoms`]."""
    metadata = {"format": BANK_FORMAT, "format_version": FORMAT_VERSION}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in bank.items()}
    write_tensors(path, tensor_bytes(tensors, metadata))


def read_bank(bank: str | os.PathLike | Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """A bank from its file, or as it is.

    Raises:
        FileNotFoundError, ValueError: As [`read_tensors`].
    """
    return bank if isinstance(bank, Mapping) else read_tensors(bank, BANK_FORMAT, "save_bank")[0]


def check_atoms(
    bank: Mapping[str, torch.Tensor], target: str, left: Sequence[int], right: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The atoms of a target.

    Raises:
        ValueError: If there are none, or they have other shapes than `left` and `right`.
    """
    found = []
    for side, shape in (("left", left), ("right", right)):
        tensor = bank.get(f"{target}.{side}")
        if tensor is None:
            raise ValueError(f"the bank has no atoms of {target}; it has {', '.join(sorted(bank)) or 'none'}")
        if tuple(tensor.shape) != tuple(shape):
            raise ValueError(
                f"the {side} atoms of {target} in the bank have the shape {tuple(tensor.shape)}, but "
                f"{tuple(shape)} is needed; use a bank of the same shapes, num_atoms and rank"
            )
        found.append(tensor)
    return found[0], found[1]
