"""Token routing in training."""

import pytest
import torch

from hf_matryoshka.modeling.token_routing import TokenRouting
from hf_matryoshka.trainers.losses.budget_penalty import budget_penalty_loss
from hf_matryoshka.trainers.token_delta import draw_share

from .delta_runs import ARCHITECTURES, batch, cross_entropy, history, make, train, trainer


def test_a_share_depends_on_seed_and_step_alone():
    shares = [0.25, 0.5, 1.0]
    drawn = [draw_share(1, step, shares) for step in range(300)]
    assert drawn[::-1] == [draw_share(1, step, shares) for step in reversed(range(300))]
    assert drawn != [draw_share(2, step, shares) for step in range(300)]
    assert all(60 < drawn.count(share) < 140 for share in shares)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_larger_budgets_are_routed_and_the_previews_learn(architecture, tmp_path):
    model = make(architecture, token_routing=True)
    options = {"enable_token_delta": True, "token_shares": [0.5], "preview_weight": 0.3, "enable_kd": False}
    built = trainer(tmp_path, model, level_sampling="all", **options)
    inputs = batch()
    found = built.compute_loss(model.train(), inputs)
    losses, previews = [], []
    for level in range(3):
        routing = TokenRouting(0.5)
        logits = model(**inputs, level=level, routing=routing).logits
        losses.append(cross_entropy(logits, inputs["labels"]))
        assert bool(routing.shares) == (level > 0)
        previews += [routing.preview_loss()] if level else []
    torch.testing.assert_close(found, sum(losses) / 3 + 0.3 * sum(previews) / 2)
    # In evaluation all tokens run at the size of the budget.
    model.eval()
    with torch.no_grad():
        expected = sum(cross_entropy(model(**inputs, level=level).logits, inputs["labels"]) for level in range(3)) / 3
        torch.testing.assert_close(built.compute_loss(model, inputs), expected)


def test_the_penalty_is_for_more_than_the_drawn_share(tmp_path):
    model = make("DeltaModernBert", token_routing=True)
    options = {"enable_token_delta": True, "token_shares": [0.25], "gamma_budget": 2.0, "enable_kd": False}
    built = trainer(tmp_path, model, level_sampling="all", **options)
    built.compute_loss(model.train(), batch())
    expected = []
    for level, routing in built.routings:
        routed = model.routed_macs(level, 12)
        whole = model.cost(level, 12)["macs"]
        target = 1 - 0.75 * sum(routed) / whole
        expected.append(budget_penalty_loss(torch.stack(routing.soft_shares), routed, whole - sum(routed), target))
    found = built._training_terms.pop(built.accelerator)["budget"]
    assert found == pytest.approx(2 * torch.stack(expected).mean().item(), abs=1e-6) and found > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_routed_is_what_a_level_has_beyond_the_smallest(architecture):
    budgets = [[0.25, 4, 1], [0.5, 4, 3], [1.0, 4, 4]]
    model = make(architecture, budgets=budgets, residual="full")
    matrices = 3 if architecture == "DeltaModernBert" else 2
    assert model.routed_macs(0) == []
    first, *others = model.routed_macs(2, 5)
    # Of the first layer the feed-forward columns; of the others all that comes after the projections of the heads.
    assert first == matrices * 32 * 24
    assert others == [32 * 32 + 2 * 32 * 5 + matrices * 32 * 32] * 3


def test_routing_trains_with_all_else_and_resumes(tmp_path):
    options = {"enable_token_delta": True, "enable_cscf": True, "enable_mug": True, "enable_delta_depth": True}
    options |= {"gamma_budget": 0.1, "enable_three_phase": True, "max_steps": 9, "save_strategy": "steps"}
    options |= {"save_steps": 6, "model": make(token_routing=True), "level_sampling": "random", "levels_per_step": 2}
    built = train(tmp_path / "whole", **options)
    assert all(loss == loss for loss in history(built))
    # From the second phase on.
    assert [bool(row.get("preview")) for row in built.state.log_history if "loss" in row][:3] == [False] * 3
    options["model"] = make(token_routing=True)
    again = train(tmp_path / "again", resume=str(tmp_path / "whole" / "checkpoint-6"), **options)
    for (name, one), (_, other) in zip(built.model.named_parameters(), again.model.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_models_that_cannot_route_and_bad_shares_are_refused(tmp_path):
    with pytest.raises(ValueError, match="enable_token_delta needs a model with config.token_routing=True"):
        trainer(tmp_path, enable_token_delta=True)
    for shares in ([], [0.5, 1.5], [0.0]):
        with pytest.raises(ValueError, match="token_shares must be numbers above 0 and up to 1"):
            trainer(tmp_path, token_shares=shares)
