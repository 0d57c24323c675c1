"""Saving in shards by level, and loading one level."""

import errno
import json
import shutil

import pytest
import torch
from peft import LoraConfig
from safetensors import safe_open
from transformers import AutoModel, AutoModelForMaskedLM, GenerationConfig, GenerationMixin

from hf_matryoshka.modeling import MatryoshkaAdaptorModel, level_shards
from hf_matryoshka.trainers.nested_lora import get_nested_lora_model

from .nested_models import UNEVEN, make_adaptor, same


INDEX = "model.safetensors.index.json"


def weights(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".safetensors" or path.name == INDEX)


def level_files(folder, level):
    return json.loads((folder / INDEX).read_text())["level_shards"]["levels"][level]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_level_loads_from_its_shards_alone(nested_model, dtype, tmp_path):
    nested_model.to(dtype)
    nested_model.save_pretrained(tmp_path / "all", shard_by_level=True)
    nested_model.save_pretrained(tmp_path / "plain")
    assert weights(tmp_path / "plain") == ["model.safetensors"]
    for level in (*nested_model.config.levels, None):
        needed = level_files(tmp_path / "all", nested_model.config.level_name(level))
        # Nothing else is there to be read.
        folder = tmp_path / f"only-{level}"
        others = [name for name in weights(tmp_path / "all") if name not in (*needed, INDEX)]
        shutil.copytree(tmp_path / "all", folder, ignore=shutil.ignore_patterns(*others))
        loaded, info = type(nested_model).from_pretrained(folder, level=level, output_loading_info=True)
        expected = nested_model if level is None else nested_model.cut(level)
        assert same(loaded, expected) and not loaded.training
        assert loaded.config.levels == expected.config.levels
        assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
        for parameter in loaded.parameters():
            assert parameter.untyped_storage().nbytes() == parameter.nbytes
        # An ordinary repo is loaded and cut.
        assert same(type(nested_model).from_pretrained(tmp_path / "plain", level=level), expected)


def test_no_value_is_stored_twice_and_each_shard_adds_something(nested_model, tmp_path):
    nested_model.save_pretrained(tmp_path / "all", shard_by_level=True)
    nested_model.save_pretrained(tmp_path / "plain")
    stored = {}
    for name in ("all", "plain"):
        stored[name] = 0
        for path in (tmp_path / name).glob("*.safetensors"):
            with safe_open(path, "pt") as file:
                sizes = [file.get_tensor(key).nbytes for key in file.keys()]
            assert sum(sizes) > 0
            stored[name] += sum(sizes)
    assert stored["all"] == stored["plain"]
    # All levels of these read the same.
    if getattr(nested_model.config, "kind", None) in ("orthogonal", "permutation", "flow"):
        assert weights(tmp_path / "all") == [f"model-{nested_model.config.levels[0]}.safetensors", INDEX]
    else:
        assert len(weights(tmp_path / "all")) == 4


def test_the_files_are_deterministic_and_nothing_else_is_left(nested_model, tmp_path):
    for name in ("a", "b"):
        nested_model.save_pretrained(tmp_path / name, shard_by_level=True)
    nested_model.save_pretrained(tmp_path / "plain")
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("a", "b")]
    assert files[0] == files[1]
    code = {path.name for path in (tmp_path / "plain").iterdir()} - {"model.safetensors"}
    assert {name for name in files[0] if not name.endswith(".safetensors") and name != INDEX} == code
    modes = {path.stat().st_mode for path in (tmp_path / "a").glob("*.safetensors")}
    assert modes == {(tmp_path / "plain" / "model.safetensors").stat().st_mode}


def test_a_folder_never_has_two_layouts(tmp_path):
    full, small = make_adaptor("mlp"), make_adaptor("mlp").cut("d8")
    sharded = ["model-d24.safetensors", "model-d4.safetensors", "model-d8.safetensors", INDEX]
    (tmp_path / "model-other.safetensors").write_bytes(b"not ours")
    full.save_pretrained(tmp_path, shard_by_level=True)
    (tmp_path / "model-other.safetensors").unlink()
    assert weights(tmp_path) == sharded
    small.save_pretrained(tmp_path, shard_by_level=True)
    assert weights(tmp_path) == [*sharded[1:3], INDEX]
    assert same(MatryoshkaAdaptorModel.from_pretrained(tmp_path), small)
    full.save_pretrained(tmp_path)
    assert weights(tmp_path) == ["model.safetensors"]
    assert same(MatryoshkaAdaptorModel.from_pretrained(tmp_path), full)
    small.save_pretrained(tmp_path, shard_by_level=True)
    assert weights(tmp_path) == [*sharded[1:3], INDEX]
    # Ordinary shards, which have an index of the same name.
    full.save_pretrained(tmp_path, max_shard_size=2000)
    ordinary = weights(tmp_path)
    assert len(ordinary) > 2 and all("-of-" in name for name in ordinary[:-1])
    assert same(MatryoshkaAdaptorModel.from_pretrained(tmp_path, level="d8"), small)
    full.save_pretrained(tmp_path, shard_by_level=True)
    assert weights(tmp_path) == sharded


def test_an_unsharded_file_counts_before_an_index(tmp_path):
    old, new = make_adaptor("linear"), make_adaptor("linear").cut("d8")
    old.save_pretrained(tmp_path, shard_by_level=True)
    with torch.no_grad():
        new.adaptor.projection.weight.neg_()
    new.save_pretrained(tmp_path / "new")
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(tmp_path / "new" / name, tmp_path / name)
    assert same(MatryoshkaAdaptorModel.from_pretrained(tmp_path), new)


@pytest.mark.parametrize("start", ["empty", "plain", "sharded"])
def test_a_save_that_fails_leaves_what_was_there(tmp_path, monkeypatch, start):
    old = make_adaptor("mlp")
    if start != "empty":
        old.save_pretrained(tmp_path, shard_by_level=start == "sharded")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    calls = []

    def full_disk(tensors, path, **kwargs):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(tensors, path, **kwargs)

    save = level_shards.save_file
    monkeypatch.setattr(level_shards, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        old.cut("d8").save_pretrained(tmp_path, shard_by_level=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_shards_are_copied_one_at_a_time(tmp_path, monkeypatch):
    model, sizes = make_adaptor("mlp"), []

    def record(tensors, path, **kwargs):
        sizes.append(sum(tensor.nbytes for tensor in tensors.values()))
        save(tensors, path, **kwargs)

    save = level_shards.save_file
    monkeypatch.setattr(level_shards, "save_file", record)
    model.save_pretrained(tmp_path, shard_by_level=True)
    assert len(sizes) == 3 and sum(sizes) == sum(tensor.nbytes for tensor in model.state_dict().values())


def test_a_loaded_level_is_saved_again(tiny_nested, tmp_path):
    model = tiny_nested.make("TinyNestedForMaskedLM", intermediate_sizes=UNEVEN)
    model.save_pretrained(tmp_path / "full", shard_by_level=True)
    middle = type(model).from_pretrained(tmp_path / "full", level=1)
    middle.save_pretrained(tmp_path / "middle", shard_by_level=True)
    middle.save_pretrained(tmp_path / "full")
    assert weights(tmp_path / "middle") == ["model-f16-l2.safetensors", "model-f32-l3.safetensors", INDEX]
    first = "model-f16-l2.safetensors"
    model.save_pretrained(tmp_path / "again", shard_by_level=True)
    assert (tmp_path / "middle" / first).read_bytes() == (tmp_path / "again" / first).read_bytes()
    assert same(type(model).from_pretrained(tmp_path / "middle", level=0), model.cut(0))
    assert same(type(model).from_pretrained(tmp_path / "full"), model.cut(1))


def test_other_arguments_keep_working(tiny_nested, tmp_path):
    model = tiny_nested.make("TinyNestedForMaskedLM")
    model.save_pretrained(tmp_path / "sub", shard_by_level=True)
    model_class, level = type(model), model.config.levels[0]
    half = model_class.from_pretrained(tmp_path / "sub", level=level, dtype=torch.bfloat16)
    assert same(half, model_class.from_pretrained(tmp_path / "sub", dtype="bfloat16").cut(level))
    assert half.dtype == torch.bfloat16
    assert same(model_class.from_pretrained(tmp_path / "sub", level=level, dtype="auto"), model.cut(level))
    assert same(model_class.from_pretrained(tmp_path, subfolder="sub", level=0, device_map="cpu"), model.cut(level))
    config = tiny_nested.TinyNestedConfig.from_pretrained(tmp_path / "sub", layer_norm_eps=0.5)
    given = model_class.from_pretrained(tmp_path / "sub", level=level, config=config)
    assert given.config.layer_norm_eps == 0.5 and config.levels == model.config.levels
    eager = model_class.from_pretrained(
        tmp_path / "sub", level=level, attn_implementation="eager", hidden_dropout_prob=0.25
    )
    assert eager.config._attn_implementation == "eager" and eager.config.hidden_dropout_prob == 0.25
    assert eager.name_or_path == eager.config.name_or_path == str(tmp_path / "sub")
    # Another head than the one that was saved, and a model from tensors alone.
    encoder = AutoModel.from_pretrained(tmp_path / "sub", level=level)
    assert torch.equal(
        encoder.encoder.layer[1].output.dense.weight, model.bert.encoder.layer[1].output.dense.weight[:, :16]
    )
    alone = model_class.from_pretrained(None, config=model.config, state_dict=model.state_dict(), level=level)
    assert same(alone, model.cut(level))
    assert same(AutoModelForMaskedLM.from_pretrained(tmp_path / "sub", level=1), model.cut(1))


def test_generation_settings_come_along(tmp_path):
    class Generative(MatryoshkaAdaptorModel, GenerationMixin):
        pass

    model = Generative(make_adaptor("linear").config)
    model.generation_config = GenerationConfig(max_new_tokens=7)
    model.save_pretrained(tmp_path, shard_by_level=True)
    assert Generative.from_pretrained(tmp_path, level="d4").generation_config.max_new_tokens == 7
    assert model.cut("d4").generation_config.max_new_tokens == 7
    (tmp_path / "generation_config.json").unlink()
    assert Generative.from_pretrained(tmp_path, level="d4").generation_config.max_new_tokens != 7


@pytest.mark.parametrize("layout", ["plain", "sharded"])
def test_an_unknown_level_is_refused_before_any_weight_is_read(tmp_path, layout):
    make_adaptor("mlp").save_pretrained(tmp_path, shard_by_level=layout == "sharded")
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="level 'd5' does not exist; choose one of d4, d8, d24"):
        MatryoshkaAdaptorModel.from_pretrained(tmp_path, level="d5")


def test_bad_shards_are_named(tmp_path):
    make_adaptor("mlp").save_pretrained(tmp_path, shard_by_level=True)
    shard = tmp_path / "model-d8.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    MatryoshkaAdaptorModel.from_pretrained(tmp_path, level="d4")
    message = f"^model-d8.safetensors of {tmp_path} is not the file that its index describes .* force_download=True$"
    for level in ("d8", "d24", None):
        with pytest.raises(OSError, match=message):
            MatryoshkaAdaptorModel.from_pretrained(tmp_path, level=level)
    shard.unlink()
    with pytest.raises(
        FileNotFoundError, match=f"^{tmp_path} has no model-d8.safetensors, which its level d24 needs;"
    ):
        MatryoshkaAdaptorModel.from_pretrained(tmp_path)
    index = json.loads((tmp_path / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps(index | {"level_shards": index["level_shards"] | {"format_version": 9}}))
    with pytest.raises(ValueError, match=f"^{INDEX} of {tmp_path} has the format version 9, but this code reads"):
        MatryoshkaAdaptorModel.from_pretrained(tmp_path, level="d4")


def test_an_index_of_other_levels_is_refused(tmp_path):
    make_adaptor("mlp").cut("d8").save_pretrained(tmp_path, shard_by_level=True)
    make_adaptor("mlp").config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"^the index of {tmp_path} has no level 'd24'; it has d4, d8$"):
        MatryoshkaAdaptorModel.from_pretrained(tmp_path)


def test_an_adapter_in_the_way_is_not_passed_over(tmp_path):
    make_adaptor("mlp").save_pretrained(tmp_path / "model", shard_by_level=True)
    lora = get_nested_lora_model(make_adaptor("mlp"), LoraConfig(target_modules="all-linear"))
    lora.peft_config["default"].base_model_name_or_path = str(tmp_path / "model")
    lora.save_pretrained(tmp_path / "lora")
    with pytest.raises(
        ValueError, match="lora holds an adapter for a model that is saved in shards by level; keep it"
    ):
        AutoModel.from_pretrained(tmp_path / "lora")
    for path in (tmp_path / "lora").iterdir():
        shutil.copyfile(path, tmp_path / "model" / path.name)
    for loader in (AutoModel, MatryoshkaAdaptorModel):
        with pytest.raises(ValueError, match="model holds an adapter for a model that is saved in shards by level"):
            loader.from_pretrained(tmp_path / "model", level="d4")


def test_what_cannot_be_split_is_refused(tmp_path):
    model = make_adaptor("mlp")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file is a file; name a folder"):
        model.save_pretrained(tmp_path / "file", shard_by_level=True)
    with pytest.raises(ValueError, match="variant='fp16' and shard_by_level=True exclude each other"):
        model.save_pretrained(tmp_path / "new", shard_by_level=True, variant="fp16")
    model.adaptor.up = torch.nn.Sequential(model.adaptor.up)
    with pytest.raises(ValueError, match="has adapters around its layers.*merge the adapters"):
        model.save_pretrained(tmp_path / "new", shard_by_level=True)
    with pytest.raises(ValueError, match="has no tensor adaptor.up.weight, so it cannot be cut; if adapters"):
        model.cut("d4")
    assert not (tmp_path / "new").exists()


def test_a_process_that_is_not_the_main_one_writes_nothing(tmp_path):
    make_adaptor("mlp").save_pretrained(tmp_path / "new", is_main_process=False, shard_by_level=True)
    assert not (tmp_path / "new").exists()
