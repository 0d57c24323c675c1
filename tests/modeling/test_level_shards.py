"""Shards by level: what goes where, and what comes back."""

import json
import random

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hf_matryoshka.modeling.level_shards import (
    check_shard,
    plan_level_shards,
    read_level_index,
    read_level_shards,
    write_level_shards,
)


LEVELS = {
    "s": {"grid": (2, 3), "rows": (2, 4), "scalar": ()},
    "m": {"grid": (4, 3), "rows": (2, 4), "scalar": (), "late": (5,)},
    "same": {"grid": (4, 3), "rows": (2, 4), "scalar": (), "late": (5,)},
    "l": {"grid": (6, 7), "rows": (3, 4), "scalar": (), "late": (5,), "cube": (2, 2, 2)},
}


def state(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in LEVELS["l"].items()}


def test_pieces_of_a_tensor_that_grows_on_both_axes():
    plan = plan_level_shards(LEVELS)
    assert list(plan) == ["s", "m", "l"]
    assert [(piece.key, piece.origin, piece.shape) for piece in plan["m"]] == [
        ("grid@m.0", (2, 0), (2, 3)),
        ("late", (0,), (5,)),
    ]
    assert [(piece.key, piece.tensor, piece.origin, piece.shape) for piece in plan["l"]] == [
        ("grid@l.0", "grid", (4, 0), (2, 7)),
        ("grid@l.1", "grid", (0, 3), (4, 4)),
        ("rows@l.0", "rows", (2, 0), (1, 4)),
        ("cube", "cube", (0, 0, 0), (2, 2, 2)),
    ]


@pytest.mark.parametrize("axes", [1, 2, 3, 4])
def test_the_pieces_of_every_level_fill_its_box_exactly_once(axes):
    generator = random.Random(axes)
    for _ in range(20):
        shapes = [tuple(sorted(generator.randint(0, 5) for _ in range(3))) for _ in range(axes)]
        levels = {f"l{index}": {"x": tuple(sizes[index] for sizes in shapes)} for index in range(3)}
        count = torch.zeros(levels["l2"]["x"], dtype=torch.int)
        plan = plan_level_shards(levels)
        for level, shape in levels.items():
            for piece in plan.get(level, ()):
                piece.of(count).add_(1)
            inside = torch.zeros_like(count)
            inside[tuple(slice(size) for size in shape["x"])] = 1
            assert torch.equal(count, inside)


@pytest.mark.parametrize(
    ("small", "large", "message"),
    [
        ({"x": (4, 4)}, {"x": (8, 3)}, r"level l reads \[8, 3\] of x, which does not hold the \[4, 4\]"),
        ({"x": (4,)}, {"y": (4,)}, "level l reads nothing of x"),
        ({"x": (4,)}, {"x": (4, 4)}, "does not hold"),
    ],
)
def test_levels_that_are_not_nested_are_refused(small, large, message):
    with pytest.raises(ValueError, match=message):
        plan_level_shards({"s": small, "l": large})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_every_level_comes_back_bit_for_bit_and_no_value_is_stored_twice(tmp_path, dtype):
    tensors = state(dtype)
    index = write_level_shards(tensors, LEVELS, tmp_path)
    entry = index["level_shards"]
    assert entry["levels"] == {
        "s": ["model-s.safetensors"],
        "m": ["model-s.safetensors", "model-m.safetensors"],
        "same": ["model-s.safetensors", "model-m.safetensors"],
        "l": ["model-s.safetensors", "model-m.safetensors", "model-l.safetensors"],
    }
    stored = 0
    for name, shard in entry["shards"].items():
        assert (tmp_path / name).stat().st_size == shard["size"]
        check_shard(tmp_path / name, name, index, "here")
        with safe_open(tmp_path / name, "pt") as file:
            assert {key for key, where in index["weight_map"].items() if where == name} == set(file.keys())
            stored += sum(file.get_tensor(key).nbytes for key in file.keys())
    assert stored == index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    assert index["metadata"]["total_parameters"] == sum(tensor.numel() for tensor in tensors.values())
    for level, shapes in LEVELS.items():
        loaded = read_level_shards([tmp_path / name for name in entry["levels"][level]], index)
        assert loaded.keys() == shapes.keys()
        for name, shape in shapes.items():
            assert loaded[name].dtype == dtype
            assert loaded[name].untyped_storage().nbytes() == loaded[name].nbytes
            assert torch.equal(loaded[name], tensors[name][tuple(slice(size) for size in shape)])


def test_the_files_are_deterministic(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    first, second = (write_level_shards(state(), LEVELS, folder) for folder in folders)
    assert json.dumps(first) == json.dumps(second)
    for name in first["level_shards"]["shards"]:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_a_tensor_that_misses_a_piece_is_refused(tmp_path):
    index = write_level_shards(state(), LEVELS, tmp_path)
    paths = [tmp_path / name for name in ("model-s.safetensors", "model-l.safetensors")]
    with pytest.raises(ValueError, match="the pieces of grid hold 36 values, but it has 42"):
        read_level_shards(paths, index)


@pytest.mark.parametrize(
    ("origins", "message"),
    [
        ([(2, 2), (2, 2), (0, 0)], "the pieces of x overlap"),
        ([(10**12, 0), (2, 2), (0, 2)], "the pieces of x hold 16 values, but it has"),
        ([(2, 0, 0), (2, 2), (0, 2)], "the pieces of x have different numbers of axes"),
    ],
)
def test_pieces_that_do_not_fill_a_tensor_once_are_refused(tmp_path, origins, message):
    path = tmp_path / "model-s.safetensors"
    save_file({name: torch.ones(2, 2) for name in ("x", "x@1", "x@2", "x@3")}, path)
    pieces = {f"x@{i}": {"tensor": "x", "origin": list(origin)} for i, origin in enumerate(origins, start=1)}
    with pytest.raises(ValueError, match=message):
        read_level_shards([path], {"level_shards": {"pieces": pieces}})


def test_a_changed_shard_is_named(tmp_path):
    index = write_level_shards(state(), LEVELS, tmp_path)
    path = tmp_path / "model-m.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    check_shard(tmp_path / "model-s.safetensors", "model-s.safetensors", index, "me/x")
    message = (
        r"^model-m.safetensors of me/x is not the file that its index describes \(sha256 \w+… instead of \w+…\); "
    )
    with pytest.raises(OSError, match=message + "download it again with force_download=True$"):
        check_shard(path, "model-m.safetensors", index, "me/x")


def test_an_index_is_read_back_in_the_order_of_its_levels(tmp_path):
    index = write_level_shards(state(), LEVELS, tmp_path)
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    assert json.dumps(read_level_index(path, "me/x")) == json.dumps(index)
    path.write_text(json.dumps({"metadata": {}, "weight_map": {"x": "model-00001-of-00002.safetensors"}}))
    assert read_level_index(path, "me/x") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda index: index["level_shards"].update(format_version=2),
            "format version 2, but this code reads up to 1",
        ),
        (lambda index: index["level_shards"].pop("format_version"), "is damaged"),
        (lambda index: index["level_shards"].pop("shards"), "is damaged"),
        (lambda index: index["level_shards"]["shards"].pop("model-m.safetensors"), "is damaged"),
        (lambda index: index["level_shards"]["levels"].update(s=["../model-s.safetensors"]), "is damaged"),
        (lambda index: index["level_shards"]["levels"].update(s=[".."]), "is damaged"),
        (lambda index: index["level_shards"]["shards"]["model-s.safetensors"].pop("sha256"), "is damaged"),
        (lambda index: index["level_shards"].pop("pieces"), "is damaged"),
        (lambda index: index["level_shards"]["pieces"]["grid@l.0"].pop("tensor"), "is damaged"),
        (lambda index: index["level_shards"]["pieces"]["grid@l.0"].update(origin=[-1, 0]), "is damaged"),
        (lambda index: index["level_shards"]["pieces"]["grid@l.0"].update(origin=["0", 0]), "is damaged"),
        (lambda index: index.pop("weight_map"), "is damaged"),
    ],
)
def test_a_newer_or_damaged_index_is_refused(tmp_path, change, message):
    index = write_level_shards(state(), LEVELS, tmp_path)
    change(index)
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    with pytest.raises(ValueError, match=f"^model.safetensors.index.json of me/x .*{message}"):
        read_level_index(path, "me/x")


@pytest.mark.parametrize("content", ["", "{", "[]", '"level_shards"', '{"level_shards": 3}'])
def test_an_index_that_is_no_index_is_refused(tmp_path, content):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="model.safetensors.index.json of me/x is damaged"):
        read_level_index(path, "me/x")
