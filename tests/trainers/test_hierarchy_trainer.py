"""Prefixes of the hidden state predict groups of tokens."""

import pytest
import torch

from hf_matryoshka.data.causal_collator import CausalCollator
from hf_matryoshka.trainers.hierarchy_arguments import HierarchyTrainingArguments
from hf_matryoshka.trainers.hierarchy_trainer import EmergentGroups, HierarchyTrainer
from hf_matryoshka.trainers.losses.group_marginal import group_marginal_loss, soft_group_loss

from ..modeling.gpt_models import make
from .test_gpt_trainer import predictions, rows


GROUPS = {4: torch.arange(100) % 2, 16: torch.arange(100) % 4}


def build(folder, groups=GROUPS, model=None, **options):
    settings = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "logging_steps": 1, "save_strategy": "no"}
    args = HierarchyTrainingArguments(str(folder), **settings | options)
    data = rows()
    return HierarchyTrainer(
        model=model or make(),
        args=args,
        train_dataset=data,
        eval_dataset=data,
        data_collator=CausalCollator(0),
        groups=groups,
    )


@pytest.mark.parametrize(("targets", "term"), [("marginal", group_marginal_loss), ("soft", soft_group_loss)])
def test_each_prefix_adds_its_loss(targets, term, tmp_path):
    built, batch = build(tmp_path, hierarchy_weight=0.5, hierarchy_targets=targets), CausalCollator(0)(rows())
    model = built.model.train()
    plain = sum(torch.nn.functional.cross_entropy(*predictions(model, batch, level=level)) for level in range(3)) / 3
    known = batch["labels"][:, 1:] != -100
    hidden = model.model(batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).last_hidden_state
    hidden, labels = hidden[:, :-1][known], batch["labels"][:, 1:][known]
    table = model.get_input_embeddings().weight
    terms = {
        f"hierarchy_{width}": 0.25 * term(hidden[:, :width] @ table[:, :width].T, labels, ids)
        for width, ids in GROUPS.items()
    }
    torch.testing.assert_close(built.compute_loss(model, batch), plain + sum(terms.values()))
    logged = built._training_terms.pop(built.accelerator)
    assert {name: logged[name] for name in terms} == pytest.approx({n: t.item() for n, t in terms.items()}, abs=1e-5)
    # Evaluation is that of the model alone.
    assert not any("hierarchy" in name for name in built.evaluate())


def test_a_step_without_the_largest_level_has_no_hierarchy(tmp_path):
    options = {"level_sampling": "random", "levels_per_step": 1, "level_probabilities": [1e6, 1, 1]}
    built = build(tmp_path, **options)
    built.compute_loss(built.model.train(), CausalCollator(0)(rows()))
    assert set(built._training_terms.pop(built.accelerator)) == {"loss_d16"}


def test_rows_of_a_split_batch_are_those_of_the_largest_level(tmp_path):
    built, batch = build(tmp_path, split_batch=True), CausalCollator(0)(rows())
    built.compute_loss(built.model.train(), batch)
    logged = built._training_terms.pop(built.accelerator)
    own = {name: value[2::3] for name, value in batch.items()}
    alone = build(tmp_path, level_sampling="random", levels_per_step=1, level_probabilities=[1, 1, 1e6])
    alone.compute_loss(alone.model.train(), own)
    expected = alone._training_terms.pop(alone.accelerator)
    assert logged["hierarchy_4"] == pytest.approx(expected["hierarchy_4"], abs=1e-5)


def test_groups_emerge_anew_every_so_many_steps(tmp_path):
    built, seen = build(tmp_path, max_steps=5, hierarchy_refresh_steps=2, learning_rate=0.01), []

    def cluster(table):
        seen.append(table.clone())
        return {8: torch.arange(100) % 3}

    built.add_callback(EmergentGroups(built, cluster))
    built.train()
    # At the start, after the second and after the fourth step.
    assert len(seen) == 3 and seen[0].shape == (100, 64) and not torch.equal(seen[0], seen[1])
    assert list(built.groups) == [8]


def test_a_run_that_goes_on_has_the_groups_of_its_checkpoint(tmp_path):
    options = {"max_steps": 5, "hierarchy_refresh_steps": 4, "learning_rate": 0.01}
    options |= {"save_strategy": "steps", "save_steps": 2}

    def train(folder, **more):
        built = build(folder, model=make(), **options)
        built.add_callback(EmergentGroups(built, lambda table: {8: (table.sum(1) > table.sum(1).median()).long()}))
        built.train(**more)
        return built

    whole = train(tmp_path / "whole")
    resumed = train(tmp_path / "resumed", resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    for one, two in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, two)


def test_nothing_is_learned_of_groups_before_they_are_there(tmp_path):
    options = {"max_steps": 5, "hierarchy_refresh_steps": 2, "hierarchy_start_step": 3}
    built, seen = build(tmp_path, **options), []

    def cluster(table):
        seen.append(built.state.global_step)
        return {8: torch.arange(100) % 3}

    built.add_callback(EmergentGroups(built, cluster))
    built.train()
    assert seen == [0, 3, 5]
    assert ["hierarchy_8" in entry for entry in built.state.log_history[:5]] == [False, False, False, True, True]


def test_prefixes_learn_their_groups(tmp_path):
    built = build(tmp_path, max_steps=30, learning_rate=0.01, hierarchy_weight=1.0)
    built.train()
    history = [entry["hierarchy_4"] for entry in built.state.log_history if "hierarchy_4" in entry]
    assert history[-1] < 0.5 * history[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": {}}, "groups must hold the groups of at least one prefix length"),
        ({"groups": {65: GROUPS[4]}}, "prefix 65 is not between 1 and the hidden size 64"),
        ({"groups": {4: torch.arange(9)}}, "groups of prefix 4 are those of 9 tokens, but the model has 100"),
        ({"hierarchy_weight": 0}, "hierarchy_weight must be positive, but is 0"),
        ({"hierarchy_targets": "hard"}, "hierarchy_targets 'hard' does not exist; choose one of marginal, soft"),
        ({"hierarchy_refresh_steps": 0}, "hierarchy_refresh_steps must be at least 1"),
        ({"hierarchy_start_step": -1}, "hierarchy_start_step must not be negative, but is -1"),
        ({"hierarchy_linkage": "median"}, "hierarchy_linkage 'median' does not exist; choose one of average, comp"),
        ({"hierarchy_tree": "half"}, "hierarchy_tree 'half' does not exist; choose one of whole, prefix"),
    ],
)
def test_bad_input_is_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        build(tmp_path, **options)
