"""Delta dictionary sharing as a method of PEFT, on stock encoders and at every level of nested ones."""

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import BertForMaskedLM, Trainer, TrainingArguments

from hf_matryoshka.trainers.dds_layer import row_blocks
from hf_matryoshka.trainers.dds_model import DdsConfig

from ..modeling.delta_models import make, outputs
from . import delta_runs
from .dds_models import SMALL, assert_same, dds_layers, move, stock, weights, with_dds


NESTED = [
    ("DeltaBertForMaskedLM", "mixed"),
    ("DeltaModernBertForMaskedLM", "mixed"),
    ("DeltaModernBertModel", "joint"),
]
STOCK = ["DeltaBertModel", "DeltaModernBertForMaskedLM"]


def bank_parameters(model):
    return {name: tensor for name, tensor in model.named_parameters() if "dds_bank" in name or ".atoms." in name}


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("name", STOCK)
def test_the_model_starts_unchanged_and_the_change_is_a_mixture_of_shared_atoms(name):
    model, before = with_dds(stock(name), trained=False, private_rank=2), outputs(stock(name))
    assert torch.equal(outputs(model), before)
    targets = 6 if "DeltaBert" in name else 4
    layers = dds_layers(model)
    assert len(layers) == 5 * targets
    assert len({id(layer.atoms["default"]) for layer in layers.values()}) == targets
    assert len(bank_parameters(model)) == 2 * targets
    move(model)
    assert (outputs(model) - before).abs().max() > 0.01
    for layer in layers.values():
        atoms = layer.atoms["default"]
        expected = layer.dds_private_left["default"] @ layer.dds_private_right["default"].T
        for index, coefficient in enumerate(layer.dds_coefficients["default"]):
            atom = atoms.left[:, index] @ atoms.right[:, index].T
            assert torch.linalg.matrix_rank(atom) == 3 and atom.norm().item() == pytest.approx(1)
            expected = expected + coefficient * atom
        torch.testing.assert_close(layer.get_delta_weight("default"), expected, atol=1e-6, rtol=0)


def test_layers_of_one_name_in_different_places_are_different_targets():
    layers = dds_layers(with_dds(stock("DeltaModernBertModel")))
    one, other, deeper = (layers[f"base_model.model.layers.{name}"] for name in ("1.attn.Wo", "1.mlp.Wo", "3.attn.Wo"))
    assert one.atoms["default"] is deeper.atoms["default"] is not other.atoms["default"]


@pytest.mark.parametrize(("name", "budgets"), NESTED)
def test_every_level_has_the_leading_slice_of_the_change(name, budgets):
    model, plain = with_dds(make(name, budgets), private_rank=1), make(name, budgets)
    levels = model.config.levels
    expected = {level: outputs(model, level) for level in levels}
    with model.disable_adapter():
        for level in levels:
            assert torch.equal(outputs(model, level), outputs(plain, level))
    merged = model.merge_and_unload()
    assert type(merged) is type(plain)
    for level, value in expected.items():
        assert (value - outputs(plain, level)).abs().max() > 0.01
        torch.testing.assert_close(outputs(merged, level), value, atol=2e-5, rtol=0)
        torch.testing.assert_close(outputs(merged.cut(level)), value, atol=2e-5, rtol=0)


def test_a_merged_model_exports_to_stock():
    model = with_dds(make("DeltaModernBertForMaskedLM", "stock"))
    expected = outputs(model, 0)
    torch.testing.assert_close(outputs(model.merge_and_unload().to_stock(0)), expected, atol=2e-5, rtol=0)


def test_a_fused_layer_of_the_code_of_a_repo_is_found_by_its_name():
    class NestedBlockLinear(nn.Linear):
        blocks = 3

    assert row_blocks(NestedBlockLinear(4, 6)) == 3
    assert row_blocks(nn.Linear(4, 6)) == 1


@pytest.mark.parametrize("private_rank", [0, 2])
@pytest.mark.parametrize("train_bank", [False, True])
def test_what_is_trained(train_bank, private_rank):
    model = with_dds(stock(), trained=False, train_bank=train_bank, private_rank=private_rank)
    kinds = ["dds_coefficients"] + ["dds_bank"] * train_bank
    kinds += ["dds_private_left", "dds_private_right"] * bool(private_rank)
    expected = {name for name, _ in model.named_parameters() if any(kind in name for kind in kinds)}
    # A parameter that several modules share has the name of the first.
    expected |= {name for name in bank_parameters(model) if train_bank}
    assert trainable(model) == expected
    with model.disable_adapter():
        pass
    assert trainable(model) == expected
    model.set_requires_grad("default")
    assert trainable(model) == expected


@pytest.mark.parametrize("name", STOCK)
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_save_and_load(name, low_cpu_mem_usage, tmp_path, recwarn):
    model = with_dds(stock(name), private_rank=1, bank_seed=5)
    model.load_bank({name: tensor + 0.1 for name, tensor in model.bank_tensors().items()})
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    targets = len({id(layer.atoms["default"]) for layer in dds_layers(model).values()})
    assert len(saved) == 3 * len(dds_layers(model)) + 2 * targets
    loaded = PeftModel.from_pretrained(stock(name), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    assert not any("missing" in str(warning.message) for warning in recwarn)
    assert loaded.peft_config["default"].num_atoms == 4 and not trainable(loaded)
    assert torch.equal(outputs(loaded), outputs(model))
    assert_same(loaded.bank_tensors(), model.bank_tensors())


def test_several_adapters(tmp_path):
    first, base = with_dds(stock(), train_bank=True), outputs(stock())
    first.save_pretrained(tmp_path)
    model = with_dds(stock(), bank_seed=1, num_atoms=2, target_modules=["query", "value"])
    second = outputs(model)
    before = trainable(model)
    model.load_adapter(tmp_path, "first")
    assert trainable(model) == before
    assert torch.equal(outputs(model), second)
    model.set_adapter("first")
    assert torch.equal(outputs(model), outputs(first))
    assert any("dds_bank" in name or ".atoms.first" in name for name in trainable(model))
    model.base_model.set_adapter(["first", "default"])
    both = outputs(model)
    with pytest.raises(ValueError, match="adapters first, default are active; give adapter_name"):
        model.export_delta_pack()
    torch.testing.assert_close(outputs(model.merge_and_unload()), both, atol=2e-5, rtol=0)
    assert (both - second).abs().max() > 0.01 and (second - base).abs().max() > 0.01


def test_an_adapter_can_be_deleted():
    model = with_dds(stock())
    expected = outputs(model)
    model.add_adapter("other", DdsConfig(**SMALL))
    move(model, "other")
    model.delete_adapter("other")
    assert torch.equal(outputs(model), expected)
    assert not any("other" in name for name in model.state_dict())
    with pytest.raises(ValueError, match="there is no adapter 'other'; there are default"):
        model.bank_tensors("other")


def test_merge_and_unmerge_and_unload():
    model, plain = with_dds(stock()), stock()
    expected = outputs(model)
    model.merge_adapter(safe_merge=True)
    torch.testing.assert_close(outputs(model), expected, atol=2e-5, rtol=0)
    model.unmerge_adapter()
    torch.testing.assert_close(outputs(model), expected, atol=2e-5, rtol=0)
    model.merge_adapter()
    with model.disable_adapter():
        torch.testing.assert_close(outputs(model), outputs(plain), atol=2e-5, rtol=0)
    unloaded = with_dds(stock()).unload()
    assert type(unloaded) is BertForMaskedLM
    assert_same(weights(unloaded), weights(plain))


def test_a_merge_that_would_break_the_weights_is_refused():
    model = with_dds(stock())
    next(iter(dds_layers(model).values())).dds_coefficients["default"].data[0] = float("inf")
    with pytest.raises(ValueError, match="adapter 'default' has values that are not finite"):
        model.merge_adapter(safe_merge=True)


def test_half_precision():
    model = with_dds(stock().to(torch.bfloat16), private_rank=1)
    assert all(layer.dds_coefficients["default"].dtype == torch.float32 for layer in dds_layers(model).values())
    expected = outputs(model)
    assert expected.dtype == torch.bfloat16
    merged = outputs(model.merge_and_unload())
    assert merged.dtype == torch.bfloat16
    torch.testing.assert_close(merged, expected, atol=0.3, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        close = outputs(with_dds(stock()))
    torch.testing.assert_close(close.float(), outputs(with_dds(stock())), atol=0.3, rtol=0)


def test_bad_input():
    with pytest.raises(ValueError, match="num_atoms must be at least 1, but is 0"):
        DdsConfig(num_atoms=0)
    with pytest.raises(ValueError, match="word_embeddings is a Embedding, but DDS adapts linear layers"):
        with_dds(stock(), target_modules=["word_embeddings"])


@pytest.mark.parametrize("train_bank", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_training_changes_the_adapter_alone(nested, train_bank, tmp_path):
    base = delta_runs.make("DeltaModernBert")
    config = {"train_bank": train_bank, "private_rank": 1, "num_atoms": 8, "rank": 8}
    model = with_dds(base if nested else base.to_stock(), trained=False, **config)
    before = weights(model)
    settings = {"max_steps": 12, "learning_rate": 0.1}
    if nested:
        trainer = delta_runs.trainer(tmp_path, model, data=delta_runs.rows(8), **settings)
    else:
        fixed = {"per_device_train_batch_size": 8, "logging_steps": 1, "save_strategy": "no", "report_to": "none"}
        arguments = TrainingArguments(str(tmp_path), **settings, **fixed, use_cpu=True, disable_tqdm=True)
        trainer = Trainer(model, arguments, train_dataset=delta_runs.rows(8))
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[-1] < losses[0] - 0.05
    for name, tensor in weights(model).items():
        moves = "dds_coefficients" in name or "dds_private" in name
        moves = moves or (train_bank and ("dds_bank" in name or ".atoms." in name))
        assert torch.equal(tensor, before[name]) != moves, name


def test_a_training_that_was_interrupted_goes_on(tmp_path):
    def trainer(**settings):
        model = with_dds(delta_runs.make("DeltaModernBert"), trained=False, train_bank=True)
        return delta_runs.trainer(tmp_path, model, max_steps=6, learning_rate=0.1, **settings)

    first, second = trainer(save_strategy="steps", save_steps=3), trainer()
    first.train()
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert_same(weights(second.model), weights(first.model))
