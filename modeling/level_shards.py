"""One checkpoint in shards by level.

The first shard holds what the smallest level reads, each further one only what the next level adds. A tensor that
grows from level to level is stored as rectangular pieces, so no value is stored twice. The index, a
`model.safetensors.index.json`, says which shards a level needs, where each piece lies, and the sha256 of each shard.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers.utils import logging


FORMAT_VERSION = 1
# Key of the index under which everything stands that an ordinary index of shards does not have.
LEVEL_SHARDS = "level_shards"


@dataclass(frozen=True)
class Piece:
    """A rectangular part of a tensor.

    Args:
        key (`str`): Its name in the shard; that of the tensor if it is the first piece.
        tensor (`str`): The tensor that it belongs to.
        origin (`tuple[int, ...]`): Where it starts in the tensor, one position an axis.
        shape (`tuple[int, ...]`): Its extent.
    """

    key: str
    tensor: str
    origin: tuple[int, ...]
    shape: tuple[int, ...]

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """This part of `tensor`, as a view."""
        return tensor[tuple(slice(start, start + size) for start, size in zip(self.origin, self.shape, strict=True))]


def plan_level_shards(levels: Mapping[str, Mapping[str, Sequence[int]]]) -> dict[str, list[Piece]]:
    """Which pieces each level adds to the one before it.

    Args:
        levels (`Mapping[str, Mapping[str, Sequence[int]]]`): For each level, the smallest first, the tensors that it
            reads and the shape of the leading part that it reads of each.

    Returns:
        `dict[str, list[Piece]]`: The new pieces of each level; a level that adds nothing is left out.

    Raises:
        ValueError: If a level does not hold the one before it.
    """
    plan, known = {}, {}
    for level, shapes in levels.items():
        for name, old in known.items():
            new = tuple(shapes.get(name, ()))
            if len(new) != len(old) or any(a > b for a, b in zip(old, new, strict=True)):
                raise ValueError(
                    f"level {level} reads {list(new) if name in shapes else 'nothing'} of {name}, which does not hold "
                    f"the {list(old)} that the level before it reads"
                )
        pieces = []
        for name, shape in shapes.items():
            shape = tuple(shape)
            if name not in known:
                pieces.append(Piece(name, name, (0,) * len(shape), shape))
                continue
            for number, (origin, extent) in enumerate(_difference(known[name], shape)):
                pieces.append(Piece(f"{name}@{level}.{number}", name, origin, extent))
        known.update({name: tuple(shape) for name, shape in shapes.items()})
        if pieces:
            plan[level] = pieces
    return plan


def _difference(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Origins and extents of boxes that, without overlap, fill a leading box `new` outside the leading box `old`."""
    boxes = []
    for axis, (start, stop) in enumerate(zip(old, new, strict=True)):
        extent = (*old[:axis], stop - start, *new[axis + 1 :])
        if 0 not in extent:
            boxes.append(((0,) * axis + (start,) + (0,) * (len(new) - axis - 1), extent))
    return boxes


def shard_file(level: str) -> str:
    """Name of the shard that a level adds."""
    return f"model-{level}.safetensors"


def write_level_shards(
    state: Mapping[str, torch.Tensor],
    levels: Mapping[str, Mapping[str, Sequence[int]]],
    folder: str | os.PathLike,
    blocks: Mapping[str, int] | None = None,
) -> dict:
    """Write the shards, one after the other, so that at most one is copied in memory.

    Args:
        state (`Mapping[str, torch.Tensor]`): The tensors, none of them sharing memory with another.
        levels (`Mapping[str, Mapping[str, Sequence[int]]]`): As for [`plan_level_shards`].
        folder (`str` or `os.PathLike`): Where to write them.
        blocks (`Mapping[str, int]`, *optional*): The tensors whose first axis holds several blocks of which each level
            reads the leading rows, and how many. They are stored with one more axis, that of the blocks.

    Returns:
        `dict`: The index that belongs to them; writing it is left to the caller, once the shards are in place.
    """
    blocks = {name: count for name, count in (blocks or {}).items() if name in state}
    state = {
        name: tensor.unflatten(0, (blocks[name], -1)) if name in blocks else tensor for name, tensor in state.items()
    }
    levels = {
        level: {name: _with_blocks(shape, blocks.get(name)) for name, shape in shapes.items()}
        for level, shapes in levels.items()
    }
    plan = plan_level_shards(levels)
    needed, shards, pieces, weight_map = {}, {}, {}, {}
    for level in logging.tqdm(levels, desc="Writing level shards"):
        if level in plan:
            name = shard_file(level)
            path = os.path.join(folder, name)
            # Positions without a copy where the piece is contiguous as it is.
            tensors = {piece.key: piece.of(state[piece.tensor]).contiguous() for piece in plan[level]}
            save_file(tensors, path, metadata={"format": "pt"})
            del tensors
            shards[name] = {"sha256": file_sha256(path), "size": os.path.getsize(path)}
            weight_map.update({piece.key: name for piece in plan[level]})
            grown = [piece for piece in plan[level] if piece.key != piece.tensor]
            pieces.update({piece.key: {"tensor": piece.tensor, "origin": list(piece.origin)} for piece in grown})
        needed[level] = list(shards)
    return {
        "metadata": {
            "total_parameters": sum(tensor.numel() for tensor in state.values()),
            "total_size": sum(tensor.nbytes for tensor in state.values()),
        },
        "weight_map": dict(sorted(weight_map.items())),
        LEVEL_SHARDS: {
            "format_version": FORMAT_VERSION,
            "levels": needed,
            "shards": shards,
            "pieces": dict(sorted(pieces.items())),
            **({"blocks": sorted(blocks)} if blocks else {}),
        },
    }


def _with_blocks(shape: Sequence[int], blocks: int | None) -> tuple[int, ...]:
    return tuple(shape) if blocks is None else (blocks, shape[0] // blocks, *shape[1:])


def leading_part(tensor: torch.Tensor, shape: Sequence[int], blocks: int = 1) -> torch.Tensor:
    """The leading part of a tensor, or, where its first axis holds several blocks, that of each block.

    Args:
        tensor (`torch.Tensor`): The whole.
        shape (`Sequence[int]`): The shape of the part, all blocks together.
        blocks (`int`, *optional*, defaults to 1): Number of blocks.

    Returns:
        `torch.Tensor` of shape `shape`, a view where there is one block.
    """
    if blocks == 1:
        return tensor[tuple(slice(size) for size in shape)]
    box = tuple(slice(size) for size in _with_blocks(shape, blocks))
    return tensor.unflatten(0, (blocks, -1))[box].flatten(0, 1)


def file_sha256(path: str | os.PathLike) -> str:
    """Hexadecimal sha256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_level_index(path: str | os.PathLike, source: str) -> dict | None:
    """The index of a checkpoint in shards by level.

    Args:
        path (`str` or `os.PathLike`): A `model.safetensors.index.json`.
        source (`str`): The folder or repo it comes from, for the messages.

    Returns:
        `dict` or `None`: The index; `None` if it is that of ordinary shards.

    Raises:
        ValueError: If it is damaged or its format is newer than this code.
    """
    name = os.path.basename(path)
    try:
        with open(path, encoding="utf-8") as file:
            index = json.load(file)
        entry = index.get(LEVEL_SHARDS)
        version = None if entry is None else entry["format_version"]
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{name} of {source} is damaged; download or save it again") from error
    if entry is None:
        _check_names(index, name, source)
        return None
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ValueError(
            f"{name} of {source} has the format version {version}, but this code reads up to {FORMAT_VERSION}; "
            "use a newer version of the code"
        )
    try:
        named = {shard for shards in entry["levels"].values() for shard in shards} | set(index["weight_map"].values())
        whole = (
            named == set(entry["shards"])
            # Also no name outside the folder gets through.
            and all(map(is_weight_file, named))
            and all(isinstance(facts["sha256"], str) for facts in entry["shards"].values())
            and all(_is_placed(piece) for piece in entry["pieces"].values())
        )
    except (AttributeError, TypeError, KeyError):
        whole = False
    if not whole:
        raise ValueError(f"{name} of {source} is damaged; download or save it again")
    return index


def is_weight_file(name: str) -> bool:
    """Whether a name out of an index is that of a safetensors file beside it: no path, no other file of the folder."""
    return isinstance(name, str) and re.fullmatch(r"[^/\\:\x00-\x1f]+\.safetensors", name) is not None


def _check_names(index: dict, name: str, source: str) -> None:
    """Raise `ValueError` if an index of ordinary shards, which transformers reads, names files somewhere else."""
    listed = index.get("weight_map")
    outside = [] if not isinstance(listed, dict) else [file for file in listed.values() if not is_weight_file(file)]
    if outside:
        raise ValueError(f"{name} of {source} names {outside[0]!r}, which is no safetensors file beside it")


def _is_placed(piece: dict) -> bool:
    """Whether what an index says about a piece names a tensor and a position."""
    return isinstance(piece["tensor"], str) and all(type(start) is int and start >= 0 for start in piece["origin"])


def check_shard(path: str | os.PathLike, shard: str, index: dict, source: str) -> None:
    """Raise `OSError` unless a shard is the file that the index describes."""
    expected = index[LEVEL_SHARDS]["shards"][shard]["sha256"]
    actual = file_sha256(path)
    if actual != expected:
        raise OSError(
            f"{shard} of {source} is not the file that its index describes (sha256 {actual[:12]}… instead of "
            f"{expected[:12]}…); download it again with force_download=True"
        )


def read_level_shards(paths: Iterable[str | os.PathLike], index: dict) -> dict[str, torch.Tensor]:
    """Put the tensors of a level together from its shards, which must be all shards that the index lists for it.

    Returns:
        `dict[str, torch.Tensor]`: The tensors, each as large as the level reads it.

    Raises:
        ValueError: If the pieces of a tensor do not fill it exactly once.
    """
    origins = index[LEVEL_SHARDS]["pieces"]
    boxes, state = {}, {}
    files = [safe_open(path, framework="pt") for path in paths]
    for file in files:
        for key in file.keys():
            extent = tuple(file.get_slice(key).get_shape())
            piece = origins.get(key, {"tensor": key, "origin": (0,) * len(extent)})
            placed = Piece(key, piece["tensor"], tuple(piece["origin"]), extent)
            boxes.setdefault(placed.tensor, []).append((file, placed))
    for name, parts in boxes.items():
        shape = _joint_shape(name, [piece for _, piece in parts])
        for file, piece in parts:
            part = file.get_tensor(piece.key)
            if name not in state:
                # A tensor of its own: what is read may lie in the file, which a later save can replace.
                state[name] = torch.empty(shape, dtype=part.dtype)
            piece.of(state[name]).copy_(part)
    for name in index[LEVEL_SHARDS].get("blocks", []):
        if name in state:
            state[name] = state[name].flatten(0, 1)
    return state


def _joint_shape(name: str, pieces: Sequence[Piece]) -> list[int]:
    """Shape of a tensor; raises `ValueError` unless its pieces fill it exactly once."""
    if len({len(extent) for piece in pieces for extent in (piece.origin, piece.shape)}) > 1:
        raise ValueError(f"the pieces of {name} have different numbers of axes")
    boxes = [
        [(start, start + size) for start, size in zip(piece.origin, piece.shape, strict=True)] for piece in pieces
    ]
    shape = [max(stop for _, stop in axis) for axis in zip(*boxes, strict=True)]
    held, size = sum(math.prod(piece.shape) for piece in pieces), math.prod(shape)
    if held != size:
        raise ValueError(f"the pieces of {name} hold {held} values, but it has {size}")
    for one, other in combinations(boxes, 2):
        if all(max(a, c) < min(b, d) for (a, b), (c, d) in zip(one, other, strict=True)):
            raise ValueError(f"the pieces of {name} overlap, so they do not fill it")
    return shape
