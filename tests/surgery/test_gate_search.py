"""The gate search: no level loses on the items that the gates were chosen on."""

import numpy as np
import pytest
import torch

from hf_matryoshka.surgery.delta_gates import scale_delta
from hf_matryoshka.surgery.gate_search import search_gates

from ..modeling.delta_models import inputs, make


SETTINGS = {"progress": False}


@torch.no_grad()
def token_losses(model, level):
    """NLL of what the smallest level takes for the likeliest token at each position; the first text weighs more."""
    given = inputs()
    labels = model(**given, level=0).logits.argmax(-1)
    logits = model(**given, level=level).logits
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    weights = given["attention_mask"].double()
    weights[0] *= 2
    asked = given["attention_mask"].bool()
    return losses[asked].double().numpy(), weights[asked].numpy()


def mean(model, level):
    values, weights = token_losses(model, level)
    return np.average(values, weights=weights)


def hurt(model, smaller, larger, factor=30.0):
    """Makes what a level adds large and random, so that it is worse than the smaller one."""
    whole = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    scale_delta(model, smaller, larger, 0)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        for key, tensor in model.state_dict().items():
            tensor.copy_(torch.where(tensor == whole[key], tensor, factor * torch.randn_like(tensor)))
    return model


@pytest.fixture
def harmful():
    """A ModernBERT whose second level is ruined by what it adds."""
    return hurt(make("DeltaModernBertForMaskedLM", "ordered"), 0, 1)


def test_a_delta_that_hurts_is_taken_away(harmful):
    first, second, third = harmful.config.levels
    before = {level: mean(harmful, level) for level in harmful.config.levels}
    assert before[second] > before[first] + 1
    harmful.train()
    found = search_gates(harmful, token_losses, **SETTINGS)
    assert harmful.training
    harmful.eval()
    assert [(gate.smaller, gate.larger) for gate in found] == [(first, second), (second, third)]
    assert found[0].alpha == 0 and found[0].inexact is None
    # By construction, exactly; and so it is when it is measured, up to rounding.
    assert found[0].loss == found[0].smaller_loss == pytest.approx(before[first], abs=1e-9)
    assert found[1].smaller_loss == found[0].loss >= found[1].loss
    for level, expected in zip(harmful.config.levels, (before[first], found[0].loss, found[1].loss), strict=True):
        assert mean(harmful, level) == pytest.approx(expected, abs=1e-5)
    values = [token_losses(harmful, level)[0] for level in (first, second)]
    np.testing.assert_allclose(*values, atol=1e-5)


def test_each_gate_is_the_best_given_those_before():
    model, same = (make("DeltaModernBertForMaskedLM", "heads") for _ in range(2))
    grid = [1, 0, 0.5, 0.5]
    found = search_gates(model, token_losses, gates=grid, **SETTINGS)
    below = mean(same, 0)
    for number, gate in enumerate(found):
        losses = {}
        weights = {key: tensor.clone() for key, tensor in same.state_dict().items()}
        for alpha in (0.0, 0.5, 1.0):
            same.load_state_dict(weights)
            losses[alpha] = mean(scale_delta(same, number, number + 1, alpha), number + 1)
        assert gate.losses == pytest.approx(losses, abs=1e-5) and gate.smaller_loss == pytest.approx(below, abs=1e-5)
        assert gate.alpha == min(losses, key=losses.get)
        same.load_state_dict(weights)
        scale_delta(same, number, number + 1, gate.alpha)
        below = gate.loss
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))


def test_of_equal_gates_the_largest_is_kept():
    model = make("DeltaModernBertForMaskedLM", "stock")
    before = [parameter.clone() for parameter in model.parameters()]
    found = search_gates(model, lambda model, level: (np.ones(3), None), **SETTINGS)
    assert [gate.alpha for gate in found] == [1, 1]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_where_a_gate_of_0_is_not_the_smaller_level_it_is_measured():
    model = make("DeltaBertForMaskedLM", [[0.5, 2, 5], [1.0, 4, 5]])
    deeper = make("DeltaBertForMaskedLM", [[0.5, 4, 3], [1.0, 4, 5]])
    asked = []

    def score(model, level):
        asked.append(level)
        return token_losses(model, level)

    search_gates(model, score, **SETTINGS)
    assert asked == [model.config.levels[0], *[model.config.levels[1]] * 4]
    asked.clear()
    (gate,) = search_gates(deeper, score, **SETTINGS)
    assert asked == [deeper.config.levels[0], *[deeper.config.levels[1]] * 5]
    assert "normalises" in gate.inexact and gate.losses[0] != gate.smaller_loss


def test_a_chain_can_be_given():
    model = make("DeltaModernBertForMaskedLM", "stock")
    first, _, third = model.config.levels
    (gate,) = search_gates(model, token_losses, chain=[0, third], **SETTINGS)
    assert (gate.smaller, gate.larger) == (first, third)


def test_an_interrupted_search_leaves_the_weights_as_they_were(harmful):
    before = [parameter.clone() for parameter in harmful.parameters()]
    calls = []

    def stops(model, level):
        calls.append(level)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return token_losses(model, level)

    with pytest.raises(KeyboardInterrupt):
        search_gates(harmful, stops, **SETTINGS)
    with pytest.raises(ValueError, match="the loss of level w1.0-h4-d5 is not finite on the calibration items"):
        search_gates(
            harmful,
            lambda model, level: (np.full(2, np.nan if level == "w1.0-h4-d5" else len(level)), None),
            **SETTINGS,
        )
    assert all(torch.equal(a, b) for a, b in zip(harmful.parameters(), before, strict=True))


def test_gates_are_checked_before_any_work():
    model = make("DeltaModernBertForMaskedLM", "stock")
    for gates, shown in (([], "none"), ([0, 0.5], "0, 0.5"), ([0.5, 1], "0.5, 1")):
        with pytest.raises(ValueError, match=f"must hold 0 .* and 1 .*, but are {shown}"):
            search_gates(model, None, gates=gates)
    with pytest.raises(ValueError, match="a gate must be from 0 .* but is 2.0"):
        search_gates(model, None, gates=[0, 1, 2])
    with pytest.raises(ValueError, match="needs two levels"):
        search_gates(model, None, chain=["w1.0-h4-d5"])
