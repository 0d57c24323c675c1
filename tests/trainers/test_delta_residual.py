"""What a budget adds to the smallest one, against what the full model adds."""

import pytest
import torch
from torch.nn import functional as F
from transformers import BertConfig, BertForMaskedLM

from hf_matryoshka.trainers.losses.budget_penalty import budget_penalty_loss
from hf_matryoshka.trainers.losses.delta_residual import delta_residual_loss

from .delta_runs import ARCHITECTURES, batch, make, train, trainer


BUDGETS = [[0.25, 2, 2], [0.5, 3, 3], [1.0, 4, 4]]
ON = {"enable_delta_residual": True, "beta_delta": 1.0}


def test_the_loss_is_the_share_that_is_not_explained():
    torch.manual_seed(0)
    full, base = torch.randn(2, 3, 6), torch.randn(2, 3, 4)
    state = torch.randn(2, 3, 5, requires_grad=True)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    wanted = full[..., :5] - F.pad(base, (0, 1))
    added = state - F.pad(base, (0, 1))
    expected = (wanted - added)[mask].square().sum() / wanted[mask].square().sum()
    torch.testing.assert_close(delta_residual_loss([state], [base], [full], mask), expected)
    other = torch.randn(2, 3, 5)
    both = delta_residual_loss([state, other], [base, base], [full, full], mask)
    torch.testing.assert_close(both, (expected + delta_residual_loss([other], [base], [full], mask)) / 2)
    # A budget that adds nothing, and one that adds all.
    assert delta_residual_loss([F.pad(base, (0, 2))], [base], [full]).item() == pytest.approx(1)
    assert delta_residual_loss([full], [base], [full]).item() == pytest.approx(0, abs=1e-6)


def test_only_the_budget_has_a_gradient():
    torch.manual_seed(0)
    state, base, full = (torch.randn(2, 3, 4, requires_grad=True) for _ in range(3))
    delta_residual_loss([state], [base], [full]).backward()
    assert base.grad is None and full.grad is None and state.grad.abs().min() > 0


def test_nothing_to_explain_is_not_blown_up():
    full = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    state = (full + 0.01).requires_grad_()
    loss = delta_residual_loss([state], [full.clone()], [full])
    assert loss.item() == pytest.approx(1e-4 * 24 / (1e-3 * full.square().sum().item()), rel=1e-3)
    loss.backward()
    assert state.grad.abs().max() < 10
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    assert delta_residual_loss([state], [full], [full], nothing).item() == 0


def hidden(model, level=None):
    """States of a level before the first layer and after each, of a batch with padding."""
    inputs = padded()
    output = model.base_model(inputs["input_ids"], inputs["attention_mask"], level=level, output_hidden_states=True)
    return output.hidden_states, inputs["attention_mask"].bool()


def padded():
    inputs = batch()
    inputs["attention_mask"][3, 7:] = 0
    return inputs


def term(built, inputs=None, step=0):
    built.state.global_step = step
    built.compute_loss(built.model.train(), padded() if inputs is None else inputs)
    return built._training_terms.pop(built.accelerator).get("delta")


@pytest.mark.parametrize("residual", ["full", "joint"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_in_place_a_level_explains_what_the_full_one_adds(architecture, residual, tmp_path):
    model = make(architecture, residual=residual, budgets=BUDGETS)
    built = trainer(tmp_path, model, **{**ON, "beta_delta": 2.0})
    # Ends of the levels: the middle one is compared after layers 1 and 2, where the smallest has ended.
    assert built.deltas == {1: [1, 2]}
    base, own, full = (hidden(model, level)[0] for level in (0, 1, 2))
    mask = hidden(model)[1]
    width = own[0].shape[-1]
    pairs = [
        (model.exit_states(own[2], 1), model.exit_states(full[2][..., :width])),
        (own[3], model.exit_states(full[3][..., :width])),
    ]
    expected = []
    for state, target in pairs:
        wanted = target - F.pad(base[2], (0, width - base[2].shape[-1]))
        expected.append((target - state)[mask].square().sum() / wanted[mask].square().sum())
    assert term(built) == pytest.approx(2 * torch.stack(expected).mean().item(), rel=1e-4)


def test_taps_before_the_end_and_the_order_of_the_layers(tmp_path):
    model = make("DeltaModernBert", budgets=BUDGETS, layer_order=[0, 3, 2, 1])
    built = trainer(tmp_path, model, tap_layers=[2], **ON)
    # Levels 0 and 1 run layers 0 and 3; 0, 2 and 3. At layer 2 the smallest is where it was after layer 0.
    assert built.deltas == {1: [2]}
    (base, own, full), mask = (hidden(model, level)[0] for level in (0, 1, 2)), hidden(model)[1]
    target = model.exit_states(full[3])
    wanted = target - model.exit_states(base[1], 0)
    left = target - model.exit_states(own[2], 1)
    assert term(built) == pytest.approx((left[mask].square().sum() / wanted[mask].square().sum()).item(), rel=1e-4)


def test_a_teacher_of_the_same_shape_is_explained_by_all_levels(tmp_path):
    sizes = {"vocab_size": 40, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 16}
    torch.manual_seed(1)
    teacher = BertForMaskedLM(BertConfig(num_hidden_layers=4, **sizes))
    model = make("DeltaBert", budgets=[[0.25, 2, 2], [1.0, 4, 4]])
    built = trainer(tmp_path, model, teacher=teacher, **ON)
    assert built.deltas == {1: [1, 3]}
    inputs = padded()
    target = teacher(**inputs, output_hidden_states=True).hidden_states
    (base, full), mask = (hidden(model, level)[0] for level in (0, 1)), inputs["attention_mask"].bool()
    expected = [
        (target[tap + 1] - full[tap + 1])[mask].square().sum() / (target[tap + 1] - base[2])[mask].square().sum()
        for tap in (1, 3)
    ]
    assert term(built) == pytest.approx(torch.stack(expected).mean().item(), rel=1e-4)
    # One of another shape teaches predictions only.
    shallow = BertForMaskedLM(BertConfig(num_hidden_layers=3, **sizes))
    assert trainer(tmp_path, make(budgets=BUDGETS), teacher=shallow, **ON).deltas == {1: [1, 2]}
    with pytest.raises(ValueError, match="or a teacher with 4 layers of width 32, but there is neither"):
        trainer(tmp_path, make(budgets=[[0.25, 2, 2], [1.0, 4, 4]]), teacher=shallow, **ON)
    trainer(tmp_path, make(), teacher=make(seed=1), level_schedule="ascending", **ON)
    with pytest.raises(ValueError, match="'ascending' trains the full budget last"):
        trainer(tmp_path, make(), teacher=shallow, level_schedule="ascending", **ON)


def test_steps_that_lack_a_part(tmp_path):
    """Without the smallest or the full budget these run without gradient; a shortened full one explains nothing."""
    settings = {"level_sampling": "random", "levels_per_step": 1, **ON}
    built = trainer(tmp_path, make(budgets=BUDGETS), **settings)
    found = {}
    for step in range(30):
        found.setdefault(built.level_sampler.sample(step, 0)[0], term(built, step=step))
    assert found[0] is None and found[2] is None
    assert found[1] == pytest.approx(term(trainer(tmp_path, make(budgets=BUDGETS), **ON)), rel=1e-5)
    shortened = {"enable_delta_depth": True, "depth_dropout": 1.0, "depth_dropout_end": 1.0}
    teacher = make(seed=1, budgets=BUDGETS)
    assert term(trainer(tmp_path, make(budgets=[BUDGETS[0], BUDGETS[2]]), teacher=teacher, **ON, **shortened)) is None
    built = trainer(tmp_path, make(budgets=BUDGETS), **ON, level_schedule="descending")
    assert term(built) is None


def test_a_level_inside_which_the_smallest_is_not_has_no_residual(tmp_path):
    model = make(budgets=[[0.5, 2, 2], [0.25, 4, 3], [0.75, 4, 3], [1.0, 4, 4]])
    assert trainer(tmp_path, model, **ON).deltas == {2: [1, 2]}


def test_it_is_learned(tmp_path):
    """Without other losses the middle budget comes nearer to the full one."""
    settings = {"enable_kd": False, "level_weights": [0.0, 0.0, 1.0], "learning_rate": 0.003, "max_steps": 20}
    losses = {}
    for beta in (0.0, 30.0):
        built = train(tmp_path, model=make(budgets=BUDGETS), enable_delta_residual=True, beta_delta=beta, **settings)
        built.args.beta_delta = 1.0
        losses[beta] = term(built)
    assert losses[30.0] < 0.7 * losses[0.0]


def test_the_penalty_is_a_squared_hinge_on_the_share_of_the_flops():
    kept = torch.tensor([[0.5, 1.0], [0.7, 0.8]], requires_grad=True)
    # Of 10 + 20 + 70 FLOPs: 70 + 0.6 * 10 + 0.9 * 20.
    loss = budget_penalty_loss(kept, [10.0, 20.0], 70.0, 0.5)
    assert loss.item() == pytest.approx((0.94 - 0.5) ** 2)
    loss.backward()
    torch.testing.assert_close(kept.grad, 2 * 0.44 * torch.tensor([[0.05, 0.1], [0.05, 0.1]]))
    assert budget_penalty_loss(kept, [10.0, 20.0], 70.0, 0.95).item() == 0
    # Without routing there is nothing to save.
    assert budget_penalty_loss(torch.ones(2), [0.0, 0.0], 70.0, 0.5).item() == 0
    assert budget_penalty_loss(torch.ones(0), [], 70.0, 0.5).item() == 0
    with pytest.raises(ValueError, match="keep rates of 2 layers, but the FLOPs of 3"):
        budget_penalty_loss(kept, [1.0, 1.0, 1.0], 70.0, 0.5)
