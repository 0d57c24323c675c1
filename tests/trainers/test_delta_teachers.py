"""Who teaches whom in a step, and what ties the budgets together."""

import pytest
import torch
from torch.nn import functional as F
from transformers import BertConfig, BertForMaskedLM

from hf_matryoshka.trainers.delta_trainer import DeltaTrainer
from hf_matryoshka.trainers.depth_dropout import draw_layers

from .delta_runs import ARCHITECTURES, NAMES, batch, cross_entropy, make, trainer


class Recorder(DeltaTrainer):
    """Notes the passes of each step: level, layers, and whether they have gradients."""

    passes = ()

    def _run(self, model, inputs, level, layers=None):
        self.passes = (*self.passes, (level, layers, torch.is_grad_enabled()))
        return super()._run(model, inputs, level, layers)


def passes(tmp_path, steps=12, **arguments):
    built = trainer(tmp_path, **arguments)
    built.__class__, built.state.max_steps, found = Recorder, steps, []
    for step in range(steps):
        built.state.global_step, built.passes = step, ()
        assert torch.isfinite(built.compute_loss(built.model.train(), batch()))
        found.append(built.passes)
    return found, built


def test_the_full_budget_runs_once_a_step_and_teaches_where_it_is_not_trained(tmp_path):
    for step in passes(tmp_path)[0]:
        assert step == ((2, None, True), (0, None, True), (1, None, True))
    drawn, built = passes(tmp_path, level_sampling="random", levels_per_step=1)
    for number, step in enumerate(drawn):
        (level,) = built.level_sampler.sample(number, 0)
        assert step == (((2, None, True),) if level == 2 else ((2, None, False), (level, None, True)))
    assert {step[-1][0] for step in drawn} == {0, 1, 2}
    # Without anything to teach there is no such pass.
    alone = passes(tmp_path, level_sampling="random", levels_per_step=1, enable_kd=False)[0]
    assert all(len(step) == 1 for step in alone)
    settings = {"enable_delta_depth": True, "depth_dropout": 1.0, "depth_dropout_end": 1.0}
    drawn, _ = passes(tmp_path, level_sampling="random", levels_per_step=1, **settings)
    assert {len(step) for step in drawn if step[-1][0] == 2} == {1}


@pytest.mark.parametrize("others", [{}, {"enable_kd": False}, {"enable_kd": False, "enable_cscf": True}])
def test_depth_dropout_shortens_what_is_trained_not_what_teaches(others, tmp_path):
    settings = {"depth_dropout": 0.8, "depth_dropout_end": 0.4, "drop_path": 0.9}
    found, built = passes(tmp_path, enable_delta_depth=True, **settings, **others)
    chances = {"start": 0.8, "end": 0.4, "drop_path": 0.9}
    drawn = [draw_layers(42, step, step / 12, range(4), [1, 3, 4], **chances) for step in range(12)]
    assert None in drawn and len(set(drawn)) > 2
    for layers, step in zip(drawn, found, strict=True):
        smaller = ((0, None, True), (1, None, True))
        if layers is None:
            assert step == ((2, None, True), *smaller)
        else:
            teacher = ((2, None, False),) if built.args.enable_kd or built.taps else ()
            assert step == (*teacher, *smaller, (2, layers, True))


def test_a_shortened_budget_is_not_asked_to_be_better(tmp_path):
    built = trainer(
        tmp_path, enable_mug=True, enable_delta_depth=True, depth_dropout=1.0, mug_margin=100.0, rho_mug=1.0
    )
    model, inputs = built.model.train(), batch()
    built.compute_loss(model, inputs)
    losses = [cross_entropy(model(**inputs, level=level).logits, inputs["labels"]) for level in range(2)]
    # The pair of the two smaller ones alone; with so much margin the hinge is linear.
    found = built._training_terms.pop(built.accelerator)["mug"]
    assert found == pytest.approx((losses[1] - losses[0]).item() + 100, abs=1e-3)


@pytest.mark.parametrize("residual", ["full", "joint"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_alignment_compares_a_level_with_the_full_model_after_the_same_layers(architecture, residual, tmp_path):
    model = make(architecture, residual=residual, budgets=[[0.25, 2, 2], [1.0, 4, 3], [1.0, 4, 4]])
    built = trainer(tmp_path, model, enable_cscf=True, zeta_cscf=2.0)
    assert built.taps == {0: [1], 1: [1, 2]}
    inputs = batch()
    inputs["attention_mask"][3, 7:] = 0
    real = inputs["attention_mask"].bool()
    model.train()
    built.compute_loss(model, inputs)
    # Level 1 has all the width: at its taps it is the full model, also behind a final norm.
    ends, width = built.accelerator.unwrap_model(model).base_model, 16 if residual == "joint" else 32
    last = ends(inputs["input_ids"], inputs["attention_mask"], level=0).last_hidden_state
    raw = ends(inputs["input_ids"], inputs["attention_mask"], output_hidden_states=True).hidden_states[2]
    target = model.exit_states(raw[..., :width])
    expected = (1 - F.cosine_similarity(last, target, dim=-1))[real].mean()
    assert expected > 1e-3
    assert built._training_terms.pop(built.accelerator)["cscf"] == pytest.approx(expected.item(), abs=1e-5)
    assert target.shape[-1] == width and (architecture == "DeltaBert" or not torch.equal(target, raw[..., :width]))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_alignment_follows_the_order_of_the_layers(architecture, tmp_path):
    model = make(architecture, budgets=[[0.25, 2, 2], [1.0, 4, 3], [1.0, 4, 4]], layer_order=[0, 3, 2, 1])
    assert trainer(tmp_path, model, enable_cscf=True).taps == {0: [3], 1: [3]}
    built = trainer(tmp_path, model, enable_cscf=True, tap_layers=[2, 3], zeta_cscf=3.0)
    assert built.taps == {0: [3], 1: [2, 3]}
    inputs = batch()
    model.train()
    built.compute_loss(model, inputs)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    states = [model.base_model(ids, mask, level=level, output_hidden_states=True).hidden_states for level in range(3)]
    # Layers 0 and 3; 0, 2 and 3; all. The state before any layer comes first.
    pairs = [[(states[0][2], states[2][4])], [(states[1][2], states[2][3]), (states[1][3], states[2][4])]]
    real = mask.bool()
    terms = [[(1 - F.cosine_similarity(a, b, dim=-1))[real].mean() for a, b in level] for level in pairs]
    expected = 3 * torch.stack([torch.stack(level).mean() for level in terms]).mean()
    assert built._training_terms.pop(built.accelerator)["cscf"] == pytest.approx(expected.item(), abs=1e-5)


def test_an_external_teacher_teaches_every_budget(tmp_path):
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    teacher = BertForMaskedLM(config).train()
    built = trainer(tmp_path, teacher=teacher, alpha_kd=1e9)
    assert not teacher.training and not any(parameter.requires_grad for parameter in teacher.parameters())
    inputs = batch()
    asked = inputs["labels"] != -100
    calls = []
    teacher.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    built.compute_loss(built.model.train(), inputs)
    assert calls == [False]
    target = F.softmax(teacher(**inputs).logits[asked], -1)
    terms = built._training_terms.pop(built.accelerator)
    for level, name in enumerate(NAMES):
        student = F.log_softmax(built.model(**inputs, level=level).logits[asked], -1)
        expected = F.kl_div(student, target, reduction="batchmean").item()
        assert terms[f"loss_{name}"] == pytest.approx(expected, abs=1e-5)
    assert not any("teacher" in name for name, _ in built.model.named_parameters())
