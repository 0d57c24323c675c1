"""The adaptor's trainer, with a regression test for each defect of the first implementation of the paper."""

import numpy as np
import pytest
import torch

from hf_matryoshka.data.adaptor_batches import AdaptorCollator, document_anchors, labelled_anchors, sample_anchors
from hf_matryoshka.modeling import MatryoshkaAdaptorConfig, MatryoshkaAdaptorModel
from hf_matryoshka.trainers.adaptor_arguments import AdaptorTrainingArguments
from hf_matryoshka.trainers.adaptor_trainer import AdaptorTrainer


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(80, 16)) * np.linspace(2, 0.3, 16)[rng.permutation(16)]).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def sets(corpus):
    queries = corpus[:30] + 0.1 * np.random.default_rng(1).normal(size=(30, 16)).astype(np.float32)
    return [document_anchors(corpus), labelled_anchors(queries, [{i: 1.0} for i in range(30)], label_weight=0.5)]


def adaptor(kind="mlp", **config):
    torch.manual_seed(0)
    return MatryoshkaAdaptorModel(
        MatryoshkaAdaptorConfig(embedding_dim=16, matryoshka_dims=[2, 4, 16], kind=kind, num_reflections=4, **config)
    )


def trainer(tmp_path, corpus, sets, model=None, steps=30, **arguments):
    settings = {"learning_rate": 1e-2, "per_device_train_batch_size": 16, "logging_steps": 5, "save_strategy": "no"}
    metrics = arguments.pop("level_metrics", None)
    args = AdaptorTrainingArguments(
        output_dir=str(tmp_path), max_steps=steps, disable_tqdm=True, use_cpu=True, **{**settings, **arguments}
    )
    return AdaptorTrainer(
        model=model or adaptor(),
        args=args,
        data_collator=AdaptorCollator(corpus, sets, random_candidates=40),
        train_dataset=sample_anchors(sets, steps * 16),
        eval_dataset=sample_anchors(sets, 32),
        level_metrics=metrics,
    )


def batch(built, scale=1.0):
    inputs = built.data_collator([built.train_dataset[row] for row in range(16)])
    return {**inputs, "anchors": scale * inputs["anchors"], "candidates": scale * inputs["candidates"]}


ALL_OBJECTIVES = {
    "topk_weight": 1.0,
    "pairwise_weight": 1.0,
    "reconstruction_weight": 1.0,
    "contrastive_weight": 1.0,
    "ranking_weight": 1.0,
}


@pytest.mark.parametrize("kind", ["mlp", "linear", "orthogonal", "permutation"])
def test_every_kind_learns_and_every_level_is_logged(tmp_path, corpus, sets, kind):
    built = trainer(tmp_path, corpus, sets, adaptor(kind), steps=40)
    before = built.evaluate()
    built.train()
    after = built.evaluate()
    assert after["eval_loss"] < before["eval_loss"] - 0.01
    assert {"loss_d2", "loss_d4", "loss_d16", "anchor"} <= set(built.state.log_history[0])


def test_every_objective_reaches_the_weights_alone(tmp_path, corpus, sets):
    for name in ("rank_distillation_weight", *ALL_OBJECTIVES):
        weights = dict.fromkeys([*ALL_OBJECTIVES, "rank_distillation_weight", "anchor_weight"], 0.0) | {name: 1.0}
        built = trainer(tmp_path, corpus, sets, **weights)
        torch.nn.init.normal_(built.model.adaptor.down.weight, std=0.1)
        built.compute_loss(built.model, batch(built)).backward()
        assert built.model.adaptor.down.weight.grad.abs().sum() > 0, name


class TestDefectsOfTheOriginal:
    def test_1_training_adapts_as_use_does(self, tmp_path, corpus, sets):
        """The supervised stage left the skip connection out, evaluation had it."""
        built = trainer(tmp_path, corpus, sets, **ALL_OBJECTIVES)
        torch.nn.init.normal_(built.model.adaptor.down.weight)
        inputs = batch(built)
        shared = built.prepare_step(built.model, inputs)
        for name in ("anchors", "candidates"):
            expected = built.model(inputs[name]).embeddings
            assert torch.allclose(getattr(shared, f"adapted_{name}"), expected, atol=1e-6)

    def test_2_the_loss_is_a_mean(self, tmp_path, corpus, sets):
        built = trainer(tmp_path, corpus, sets, **ALL_OBJECTIVES)
        torch.nn.init.normal_(built.model.adaptor.down.weight)
        inputs = batch(built)
        twice = {
            name: tensor if name == "candidates" else torch.cat([tensor, tensor]) for name, tensor in inputs.items()
        }
        args = built.args
        args.reconstruction_weight = 0.0  # a mean over anchors and candidates together
        expected = built.compute_loss(built.model, inputs).item()
        assert built.compute_loss(built.model, twice).item() == pytest.approx(expected, rel=1e-5)

    def test_3_top_k_are_corpus_neighbours_without_the_anchor(self, tmp_path, corpus, sets):
        built = trainer(tmp_path, corpus, sets[:1])
        inputs = built.data_collator([{"source": 0, "anchor": 3}, {"source": 0, "anchor": 4}])
        itself = (inputs["candidates"][None] == inputs["anchors"][:, None]).all(-1)
        assert itself.any() and not (inputs["neighbours"] & itself).any()
        nearest = np.argsort(-(corpus @ corpus[3]))[1]
        column = (inputs["candidates"].numpy() == corpus[nearest]).all(-1)
        assert inputs["neighbours"][0].numpy()[column].all()

    def test_4_hard_negatives_are_mined_and_probable_positives_are_not_negatives(self, tmp_path, corpus, sets):
        built = trainer(tmp_path, corpus, sets, contrastive_weight=1.0, false_negative_margin=0.05)
        inputs = batch(built)
        shared = built.prepare_step(built.model, inputs)
        skipped = shared.probable_positives(inputs["relevance"], 0.05)
        labelled = inputs["relevance"].sum(-1) > 0
        for row in labelled.nonzero().flatten().tolist():
            positive = shared.targets[row][inputs["relevance"][row] > 0].max()
            expected = (shared.targets[row] > positive + 0.05) & (inputs["relevance"][row] == 0)
            assert torch.equal(skipped[row], expected)
        # Alone in a batch with one random document, an anchor still meets four of its ten nearest in the corpus.
        collator = AdaptorCollator(corpus, sets, random_candidates=1, num_neighbours=10, neighbours_per_anchor=4)
        alone = collator([{"source": 1, "anchor": 2}])
        nearest = corpus[np.argsort(-(corpus @ alone["anchors"][0].numpy()))[:10]]
        met = (alone["candidates"].numpy()[:, None] == nearest[None]).all(-1).any(-1)
        assert met.sum() >= 4 and len(met) <= 6

    def test_5_losses_are_finite_and_compare_unit_vectors(self, tmp_path, corpus, sets):
        built = trainer(tmp_path, corpus, sets, **ALL_OBJECTIVES, ranking_temperature=1e-3)
        loss = built.compute_loss(built.model, batch(built))
        assert loss.isfinite()
        assert built.compute_loss(built.model, batch(built, scale=50.0)).item() == pytest.approx(loss.item(), rel=1e-4)
        inputs = batch(built, scale=50.0)
        shared = built.prepare_step(built.model, inputs)
        assert built.tie_losses(built.model, inputs, {}, shared)["reconstruction"].item() == pytest.approx(0, abs=1e-4)

    def test_6_validation_seed_and_best_checkpoint(self, tmp_path, corpus, sets):
        def run(name, seed):
            seen = []

            def metrics(model):
                seen.append(model.adaptor.down.weight.detach().clone())
                return {"quality": -float(len(seen) != 2)}  # the second validation is the best

            built = trainer(
                tmp_path / name,
                corpus,
                sets,
                steps=6,
                seed=seed,
                eval_strategy="steps",
                eval_steps=2,
                save_strategy="steps",
                save_steps=2,
                load_best_model_at_end=True,
                metric_for_best_model="eval_quality",
                greater_is_better=True,
                level_metrics=metrics,
            )
            built.train()
            assert torch.equal(built.model.adaptor.down.weight, seen[1]) and len(seen) == 3
            return seen[1]

        assert torch.equal(run("a", 0), run("b", 0))
        assert not torch.equal(run("a", 0), run("c", 1))

    def test_8_every_level_has_unit_length(self, corpus):
        model = adaptor()
        torch.nn.init.normal_(model.adaptor.down.weight)
        for level in model.config.levels:
            norms = model(torch.from_numpy(corpus), level=level).embeddings.norm(dim=-1)
            assert torch.allclose(norms, torch.ones(80), atol=1e-5)


def test_an_orthogonal_adaptor_keeps_the_full_width_while_it_trains(tmp_path, corpus, sets):
    built = trainer(tmp_path, corpus, sets, adaptor("orthogonal"), steps=20)
    built.train()
    vectors = torch.from_numpy(corpus)
    adapted = built.model(vectors).embeddings.detach()
    assert torch.allclose(adapted @ adapted.T, vectors @ vectors.T, atol=1e-5)
    assert not torch.allclose(adapted, vectors, atol=1e-2)


def test_resume_equals_an_uninterrupted_run(tmp_path, corpus, sets):
    whole = trainer(tmp_path / "whole", corpus, sets, steps=8, save_strategy="steps", save_steps=4)
    whole.train()
    resumed = trainer(tmp_path / "resumed", corpus, sets, steps=8)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert torch.equal(whole.model.adaptor.down.weight, resumed.model.adaptor.down.weight)


def test_bad_arguments_are_refused(tmp_path, corpus, sets):
    with pytest.raises(ValueError, match="reconstruction_weight compares coordinates"):
        trainer(tmp_path, corpus, sets, adaptor(projection=True), reconstruction_weight=1.0)
    with pytest.raises(ValueError, match="contrastive_temperature must be positive"):
        trainer(tmp_path, corpus, sets, contrastive_temperature=0.0)
    with pytest.raises(ValueError, match="at least one must be positive"):
        trainer(tmp_path, corpus, sets, rank_distillation_weight=0.0, anchor_weight=0.0)
