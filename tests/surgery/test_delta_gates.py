"""Gates on what a level adds to a smaller one: exact where they can be, and a reason where they cannot."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertModel

from hf_matryoshka.surgery.delta_gates import (
    check_chain,
    inexact_gate_reason,
    levels_with_delta,
    longest_chain,
    scale_delta,
)

from ..modeling.delta_models import HEADS, family, make, outputs


# Width and heads at one depth; two of the levels are not comparable.
LATTICE = [[0.25, 2, 3], [0.5, 4, 3], [1.0, 2, 3], [1.0, 4, 5]]
FLAT = [[0.25, 2, 5], [0.5, 4, 5], [1.0, 4, 5]]
PARTS = ["stock", "heads", "mixed", "ordered"]


def all_outputs(model):
    return {level: outputs(model, level) for level in model.config.levels}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("budgets", [FLAT, *PARTS], ids=["flat", *PARTS])
def test_a_gate_of_0_is_the_smaller_level_where_it_can_be(name, budgets):
    for step in ((0, 1), (1, 2), (0, 2)):
        model = make(name, budgets, **({"mlp_bias": True, "attention_bias": True} if "Modern" in name else {}))
        smaller, larger = (model.config.levels[index] for index in step)
        before, reason = all_outputs(model), inexact_gate_reason(model, *step)
        assert scale_delta(model, *step, 0) is model
        after = all_outputs(model)
        torch.testing.assert_close(after[smaller], before[smaller], rtol=0, atol=0)
        assert (after[larger] - before[larger]).abs().max() > 1e-2
        deeper = family(name) == "DeltaBert" and budgets is not FLAT
        difference = (after[larger] - after[smaller]).abs().max()
        assert (difference > 1e-2) == deeper == (reason is not None)
        if not deeper:
            torch.testing.assert_close(after[larger], after[smaller], rtol=1e-4, atol=1e-5)
        else:
            assert "more layer" in reason and "a layer of BERT normalises its output" in reason


@pytest.mark.parametrize("name", ["DeltaBertModel", "DeltaModernBertModel"])
def test_a_gate_multiplies_the_delta_and_gates_are_cumulative(name):
    model = make(name, FLAT)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    scale_delta(model, 0, 2, 1)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    scale_delta(model, "w0.25-h2-d5", "w0.5-h4-d5", 0.5)
    scale_delta(model, 1, 2, 0.25)
    heads, neurons = "attention.output.dense.weight", ".output.dense.weight"
    if "Modern" in name:
        heads, neurons = "attn.Wo.weight", "mlp.Wo.weight"
    changed = 0
    for key, tensor in model.state_dict().items():
        expected = before[key].clone()
        if key.endswith(heads):  # two heads of width 8, then two more
            expected[:, 16:] *= 0.5
        elif key.endswith(neurons):  # 12 of 48 columns, then up to 24, then all
            expected[:, 12:24] *= 0.5
            expected[:, 24:] *= 0.25
        changed += not torch.equal(tensor, before[key])
        torch.testing.assert_close(tensor, expected, rtol=0, atol=0)
    assert changed == 10


def test_the_bias_of_a_layer_that_is_added_belongs_to_the_delta():
    model = make("DeltaBertModel", [[0.5, 2, 2], [1.0, 4, 3]], num_hidden_layers=3)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    scale_delta(model, 0, 1, 0)
    state = model.state_dict()
    for layer in range(3):
        for part in ("attention.output.dense", "output.dense"):
            bias, weight = (f"encoder.layer.{layer}.{part}.{kind}" for kind in ("bias", "weight"))
            assert torch.equal(state[bias], torch.zeros(32) if layer == 2 else before[bias])
            assert bool(state[weight].any()) == (layer < 2)
    norms = [key for key in state if "LayerNorm" in key]
    assert all(torch.equal(state[key], before[key]) for key in norms)


@pytest.mark.parametrize("name", ["DeltaBertForMaskedLM", "DeltaModernBertForMaskedLM"])
def test_the_levels_that_see_a_gate_are_told(name):
    for step in ((0, 1), (0, 2), (0, 3), (1, 3), (2, 3)):
        model = make(name, LATTICE)
        before = all_outputs(model)
        told = levels_with_delta(model, *step)
        scale_delta(model, *step, 0.5)
        after = all_outputs(model)
        assert told == [level for level in model.config.levels if not torch.equal(before[level], after[level])]
    # What w0.5-h4 adds (heads, some columns) is in part in w1.0-h2, too.
    assert levels_with_delta(model, 0, 1) == ["w0.5-h4-d3", "w1.0-h2-d3", "w1.0-h4-d5"]


@pytest.mark.parametrize("name", ["DeltaBertForMaskedLM", "DeltaModernBertForMaskedLM"])
def test_a_gated_level_is_exported_as_stock(name):
    model = scale_delta(make(name, "ordered"), 0, 1, 0.25)
    for level in model.config.levels:
        stock = model.to_stock(level)
        torch.testing.assert_close(outputs(stock), outputs(model, level), rtol=1e-4, atol=1e-5)


def test_chains():
    model = make("DeltaBertModel", LATTICE)
    names = list(model.config.levels)
    assert longest_chain(model.config) == [names[0], names[1], names[3]] == check_chain(model)
    assert check_chain(model, [0, "w1.0-h2-d3", 3]) == [names[0], names[2], names[3]]
    with pytest.raises(ValueError, match="level w0.5-h4-d3 is not inside w1.0-h2-d3; a gate is between"):
        check_chain(model, [0, 1, 2])
    with pytest.raises(ValueError, match="needs two levels or more, each inside the next, but has w0.5-h4-d3; "):
        check_chain(model, [1])
    with pytest.raises(ValueError, match="needs two levels"):
        check_chain(make("DeltaBertModel", [[1.0, 4, 5]]))


def test_norms_of_their_own_keep_a_gate_from_being_exact():
    model = make("DeltaModernBertModel", "stock", budget_norms=True)
    assert "budget_norms" in inexact_gate_reason(model, 0, 1)
    scale_delta(model, 0, 1, 0)
    first, second = model.config.levels[:2]
    assert (outputs(model, first) - outputs(model, second)).abs().max() > 1e-2


def test_what_cannot_be_gated_is_left_alone():
    good = make("DeltaModernBertModel", "stock")
    before = {key: tensor.clone() for key, tensor in good.state_dict().items()}
    for alpha in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=f"a gate must be from 0 .* but is {alpha}"):
            scale_delta(good, 0, 1, alpha)
    for smaller, larger in ((1, 0), (1, 1)):
        with pytest.raises(ValueError, match="level w0.5-h4-d3 is not inside"):
            scale_delta(good, smaller, larger, 0.5)
    with pytest.raises(ValueError, match="w9"):
        scale_delta(good, 0, "w9", 0.5)
    assert all(torch.equal(tensor, before[key]) for key, tensor in good.state_dict().items())

    joint = make("DeltaModernBertModel", "joint")
    with pytest.raises(ValueError, match="have width 8 and those of .* have 24 .*; a gate needs residual='full'"):
        scale_delta(joint, 0, 1, 0.5)
    assert "have width 8" in inexact_gate_reason(joint, 0, 1)
    with pytest.raises(ValueError, match="residual='full'"):
        check_chain(joint)
    # Equal heads, and so one hidden size.
    same = make("DeltaModernBertModel", [[0.5, 4, 3], [1.0, 4, 5]], residual="joint")
    assert inexact_gate_reason(same, 0, 1) is None

    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 16}
    with pytest.raises(ValueError, match="BertModel has no levels to put a gate between; give a Delta encoder"):
        scale_delta(BertModel(BertConfig(vocab_size=9, **sizes)), 0, 1, 0.5)
    with pytest.raises(ValueError, match="has PEFT adapters"):
        scale_delta(get_peft_model(good, LoraConfig(target_modules=["Wo"])), 0, 1, 0.5)
    tied = make("DeltaBertModel", "stock")
    tied.encoder.layer[1].output.dense.weight = tied.encoder.layer[0].output.dense.weight
    with pytest.raises(ValueError, match="is shared with another layer"):
        scale_delta(tied, 0, 1, 0.5)
    quantised = make("DeltaBertModel", "stock")
    dense = quantised.encoder.layer[2].output.dense
    dense.weight = torch.nn.Parameter(dense.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match="is quantised"):
        scale_delta(quantised, 0, 1, 0.5)
