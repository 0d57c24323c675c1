"""Phases of a training: what is on when, what the base learns, and that a resumed run is the same run."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerCallback

from hf_matryoshka.modeling.level_shards import leading_part
from hf_matryoshka.trainers.delta_arguments import DeltaTrainingArguments
from hf_matryoshka.trainers.depth_dropout import draw_layers
from hf_matryoshka.trainers.level_sampler import LevelSampler
from hf_matryoshka.trainers.three_phases import PhaseUpdates, PhaseWeights, oversampled, phase_weights

from .delta_runs import batch, history, make, train, trainer


BUDGETS = [[0.25, 2, 1], [0.5, 3, 3], [1.0, 4, 4]]
PARTS = {"enable_cscf": True, "enable_mug": True, "enable_delta_depth": True, "enable_delta_residual": True}
PHASES = {"enable_three_phase": True, **PARTS}


def arguments(**settings):
    return DeltaTrainingArguments(output_dir="unused", report_to="none", use_cpu=True, **settings)


def test_weights_follow_the_table():
    args = arguments(**PHASES, zeta_cscf=0.2, rho_mug=0.3, routing_temperature=2.0, routing_temperature_end=0.5)
    packing = PhaseWeights("packing", 0.5, 0.5, 1.0, 1.0, 0.0, 0.0, 0.0, False, 2.0)
    assert phase_weights(0, 12, args) == phase_weights(3, 12, args) == packing
    middle = PhaseWeights("residualisation", 0.5, None, 1.0, 0.1, 0.0, 0.0, 0.0, True, 2.0)
    assert phase_weights(4, 12, args) == middle
    half = phase_weights(6, 12, args)
    assert half.depth_dropout == pytest.approx(0.3) and half.beta_delta == pytest.approx(0.35)
    assert replace(half, depth_dropout=0.5, beta_delta=0.0) == middle
    last = PhaseWeights("calibration", 0.1, None, 0.3, 1.0, 0.7, 0.2, 0.3, True, 2.0)
    assert phase_weights(8, 12, args) == last
    # The geometric mean half way.
    assert phase_weights(10, 12, args) == replace(last, routing_temperature=pytest.approx(1.0))
    assert phase_weights(12, 12, args).routing_temperature == pytest.approx(0.5)
    early = arguments(**PHASES, phase_boundaries=[0.1, 0.2])
    assert [phase_weights(step, 10, early).phase for step in (0, 1, 2)] == [
        "packing",
        "residualisation",
        "calibration",
    ]


def test_phases_say_when_and_flags_whether():
    found = {phase_weights(step, 12, arguments(enable_three_phase=True)) for step in range(13)}
    for name in ("depth_dropout", "beta_delta", "zeta_cscf", "rho_mug"):
        assert {getattr(weights, name) for weights in found} == {0.0}
    assert {weights.base_lr for weights in found} == {1.0, 0.1}
    assert {weights.learning_rate for weights in found} == {1.0, 0.3}


def test_without_phases_the_arguments_hold():
    args = arguments(**PARTS, depth_dropout=0.8, depth_dropout_end=0.4)
    first, last = phase_weights(0, 10, args), phase_weights(10, 10, args)
    assert first == PhaseWeights(None, 0.8, None, 1.0, 1.0, 0.7, 0.1, 0.1, True, 1.0)
    assert replace(last, depth_dropout=0.8) == first and last.depth_dropout == pytest.approx(0.4)
    # Before a training there are no steps.
    assert phase_weights(0, 0, args) == first


def test_the_smallest_budget_is_drawn_with_its_share():
    args = arguments(level_sampling="random", levels_per_step=1, level_probabilities=[1.0, 1.0, 2.0])
    sampler = LevelSampler(3, args)
    changed = oversampled(sampler, 0.6)
    draws = [changed.sample(step, 0.0) for step in range(3000)]
    assert draws.count([0]) / 3000 == pytest.approx(0.6, abs=0.03)
    assert draws.count([2]) / draws.count([1]) == pytest.approx(2, abs=0.3)
    assert sampler.probabilities == [1.0, 1.0, 2.0]
    assert oversampled(LevelSampler(1, arguments()), 0.6).sample(0, 0.0) == [0]


def at(built, step, max_steps=12):
    """The terms of one step."""
    built.state.global_step, built.state.max_steps = step, max_steps
    assert torch.isfinite(built.compute_loss(built.model.train(), batch()))
    return set(built._training_terms.pop(built.accelerator))


def test_the_trainer_has_each_term_in_its_phase(tmp_path):
    built = trainer(tmp_path, **{**PHASES, "enable_delta_depth": False})
    found = {step: at(built, step) - {f"loss_{level}" for level in built.levels} for step in (0, 3, 5, 8, 11)}
    assert found == {0: set(), 3: set(), 5: {"delta"}, 8: {"delta", "cscf", "mug"}, 11: {"delta", "cscf", "mug"}}


def test_levels_and_depths_are_drawn_as_the_phase_says(tmp_path):
    settings = {"level_sampling": "random", "levels_per_step": 1, "oversample_smallest": 0.9, "max_steps": 300}
    built = trainer(tmp_path, **settings, depth_dropout=1.0, depth_dropout_end=0.0, **PHASES)
    built.state.max_steps = 300

    def drawn(steps):
        shares = []
        for built.state.global_step in steps:
            shares.append((built._step_levels() == [0], built.phase.depth_dropout))
        smallest, rates = zip(*shares, strict=True)
        return sum(smallest) / len(smallest), rates

    share, rates = drawn(range(100))
    assert share == pytest.approx(0.9, abs=0.08) and set(rates) == {1.0}
    share, rates = drawn(range(100, 200))
    assert share == pytest.approx(1 / 3, abs=0.15) and rates[0] == 1.0 and rates[50] == pytest.approx(0.5)
    assert set(drawn(range(200, 300))[1]) == {0.0}
    # What the trainer runs is what the rate of the phase draws.
    built.args.level_sampling = "all"
    model, inputs = built.model.train(), batch()
    for built.state.global_step in (0, 150, 180, 250):
        rate = built.phase.depth_dropout
        expected = draw_layers(
            42, built.state.global_step, built.progress, range(4), [1, 3, 4], start=rate, end=rate, drop_path=0.2
        )
        assert built.prepare_step(model, inputs).layers == expected


def base_of(model):
    """Which entries of each weight the smallest level reads, but for what scales or chooses the delta."""
    shapes, blocks, found = model.level_shapes(0), model.row_blocks(), {}
    for name, value in model.named_parameters():
        inside = torch.zeros(value.numel(), dtype=torch.bool)
        if name in shapes and not name.endswith("gate") and "preview" not in name:
            places = torch.arange(value.numel()).view(value.shape)
            inside[leading_part(places, shapes[name], blocks.get(name, 1)).flatten()] = True
        found[name] = inside.view(value.shape)
    return found


CONDITIONED = {"budget_norms": True, "delta_gates": True, "token_routing": True, "residual": "joint"}


@pytest.mark.parametrize(
    ("optimizer", "architecture", "fields"),
    [
        (torch.optim.AdamW, "DeltaBert", {}),
        (torch.optim.AdamW, "DeltaModernBert", CONDITIONED),
        (torch.optim.SGD, "DeltaBert", CONDITIONED),
    ],
)
def test_the_base_has_a_learning_rate_of_its_own(optimizer, architecture, fields):
    """Two steps of each phase, entry by entry those of an optimizer with this learning rate for all weights."""
    args = arguments(enable_three_phase=True, base_lr_factor=0.25, calibration_lr_factor=0.5)
    base = base_of(make(architecture, budgets=BUDGETS, **fields))
    assert {inside.all().item() for inside in base.values()} == {True, False}
    for phase, factors in enumerate([(1.0, 1.0), (0.25, 1.0), (0.5, 0.5)]):
        models = []
        for factor in (None, *factors):
            model, callback = make(architecture, budgets=BUDGETS, **fields), PhaseUpdates()
            steps = optimizer(model.parameters(), lr=0.1 * (factor or 1.0), weight_decay=0.1)
            callback.on_train_begin(args, None, None, model=model)
            generator = torch.Generator().manual_seed(1)
            for step in (2 * phase, 2 * phase + 1):
                for parameter in model.parameters():
                    parameter.grad = torch.randn(parameter.shape, generator=generator)
                event = {"args": args, "state": SimpleNamespace(global_step=step, max_steps=6), "control": None}
                if factor is None:
                    callback.on_pre_optimizer_step(**event, model=model, optimizer=steps)
                steps.step()
                if factor is None:
                    callback.on_optimizer_step(**event, model=model, optimizer=steps)
            assert steps.param_groups[0]["lr"] == 0.1 * (factor or 1.0)
            models.append(dict(model.named_parameters()))
        found, inside, outside = models
        for name, value in found.items():
            torch.testing.assert_close(value, inside[name].where(base[name], outside[name]), msg=name)


class Steps(TrainerCallback):
    """The weights before each step, and after the last."""

    def __init__(self):
        self.found = []

    def on_step_end(self, args, state, control, model, **kwargs):
        self.found.append({name: value.detach().clone() for name, value in model.named_parameters()})


def test_a_frozen_base_keeps_its_bits_while_the_rest_learns(tmp_path):
    settings = {"max_steps": 6, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}
    model, steps = make("DeltaModernBert"), Steps()
    built = trainer(tmp_path, model, base_lr_factor=0.0, lr_scheduler_type="constant", **settings, **PHASES)
    built.add_callback(steps)
    built.train()
    changed, base = [], base_of(model)
    for old, new in zip(steps.found, steps.found[1:], strict=False):
        inside = outside = False
        for name in old:
            different = old[name] != new[name]
            inside, outside = inside or different[base[name]].any(), outside or different[~base[name]].any()
        changed.append((bool(inside), bool(outside)))
    # Steps 1 to 5; 2 and 3 are in the second phase.
    assert changed == [(True, True), (False, True), (False, True), (True, True), (True, True)]
    assert history(built, "learning_rate") == pytest.approx([0.01] * 4 + [0.003] * 2)


def test_a_resumed_run_has_the_phases_of_an_uninterrupted_one(tmp_path):
    settings = {**PHASES, "max_steps": 9, "level_sampling": "random", "depth_dropout": 0.9}
    whole = train(tmp_path / "whole", model=make(dropout=0.1), save_strategy="steps", save_steps=2, **settings)
    # In the first phase, the second, and the third.
    for step in (2, 4, 8):
        checkpoint = str(tmp_path / "whole" / f"checkpoint-{step}")
        resumed = train(tmp_path / str(step), resume=checkpoint, model=make(dropout=0.1), **settings)
        assert history(resumed) == history(whole)
        found = dict(resumed.model.named_parameters())
        assert all(torch.equal(found[name], parameter) for name, parameter in whole.model.named_parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"phase_boundaries": [0.5]}, "phase_boundaries must be two numbers between 0 and 1, the smaller first"),
        ({"phase_boundaries": [0.6, 0.5]}, "phase_boundaries must be two numbers"),
        ({"oversample_smallest": 1.0}, "oversample_smallest must be above 0 and below 1"),
        ({"base_lr_factor": -0.1}, "base_lr_factor must be between 0 and 1"),
        ({"calibration_lr_factor": 2.0}, "calibration_lr_factor must be between 0 and 1"),
        ({"routing_temperature_end": 0.0}, "routing_temperature_end must be positive"),
        ({"beta_delta": -1.0}, "beta_delta must not be negative"),
        (
            {"enable_three_phase": True, "level_schedule": "descending"},
            "a schedule of its own: use level_schedule 'constant', not 'descending'",
        ),
        ({"enable_three_phase": True, "fsdp": "full_shard"}, "which fsdp does not keep on any device"),
    ],
)
def test_bad_phases_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        arguments(**settings)
