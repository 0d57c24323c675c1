"""Distilling a tiny sentence encoder into itself, nested."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from hf_matryoshka.evaluation.curve import Curve
from hf_matryoshka.hub.export_family import export_family
from hf_matryoshka.recipes.delta_embedding_recipe import DeltaEmbeddingRecipe
from hf_matryoshka.recipes.train_delta_embedding import train_delta_embedding


WORDS = "red blue green small large old new cat dog tree house river runs sleeps sings eats over under near".split()


@pytest.fixture
def recipe(tmp_path, tiny_sentence_transformer, monkeypatch):
    monkeypatch.setenv("HF_MATRYOSHKA_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    texts = {" ".join(rng.choice(WORDS, size=rng.integers(2, 9))) for _ in range(160)}
    (tmp_path / "texts.txt").write_text("\n".join(sorted(texts)))
    return DeltaEmbeddingRecipe(
        base_model_path=tiny_sentence_transformer,
        texts=[str(tmp_path / "texts.txt")],
        budgets=[[0.5, 2, 1], [1.0, 2, 2]],
        matryoshka_dims=[8, 32],
        validation_fraction=0.2,
        max_length=16,
    )


TRAINING = {"max_steps": 40, "per_device_train_batch_size": 16, "learning_rate": 1e-3, "use_cpu": True}
TRAINING |= {"disable_tqdm": True}


def test_every_budget_learns_and_the_run_is_exported_as_stock(recipe, tmp_path):
    trained = train_delta_embedding(recipe, tmp_path / "run", TRAINING)
    small, full = trained.model[0].levels
    assert trained.report["after"][small] < 0.8 * trained.report["before"][small]
    assert trained.report["steps"] == 40 and trained.report["held_out_texts"] > 20
    assert json.loads((tmp_path / "run" / "training.json").read_text()) == trained.report
    curve = Curve.from_json(tmp_path / "run" / "curve.json")
    assert curve.levels == [small, full] and 0.2 < curve[small].quality < curve[full].quality <= 1 + 1e-6
    assert len(curve[small].per_query) == trained.report["held_out_texts"]
    family = export_family(trained.model, tmp_path / "family")
    texts = ["red cat sleeps", "old house near river"]
    for level in (small, full):
        stock = SentenceTransformer(str(tmp_path / "family" / level), device="cpu")
        expected = trained.model.encode(texts, level=level)
        assert family.levels[level].form == "stock"
        np.testing.assert_allclose(stock.encode(texts), expected, atol=1e-5)
    # Which layer the small budget runs was chosen by what the layers do.
    assert sorted(trained.model[0].model.config.layer_order) == [0, 1]
    # The same call again takes what is there.
    again = train_delta_embedding(recipe, tmp_path / "run", TRAINING)
    np.testing.assert_array_equal(again.model.encode(texts, level=small), trained.model.encode(texts, level=small))
    with pytest.raises(ValueError, match="holds other files or a run with other data or options"):
        train_delta_embedding(recipe, tmp_path / "run", TRAINING | {"max_steps": 41})


def test_the_layers_of_a_budget_can_be_given_and_the_embeddings_are_those_of_their_texts(recipe, tmp_path):
    still = TRAINING | {"max_steps": 1, "learning_rate": 0.0, "prefix_weight": 0.0}
    for options, layers in (({"layer_order": [1, 0]}, (1,)), ({"order_layers": False}, (0,))):
        run = replace(recipe, max_length=64, **options)
        trained = train_delta_embedding(run, tmp_path / str(layers), still)
        config = trained.model[0].model.config
        assert config.level_sizes(0).layers == layers
        # Texts are encoded in another order than they are trained on in; the full budget starts at its targets.
        assert trained.report["before"][config.levels[-1]] < 1e-2 < trained.report["before"][config.levels[0]]


def test_an_interrupted_run_goes_on(recipe, tmp_path, monkeypatch):
    from hf_matryoshka.trainers.delta_embedding_trainer import DeltaEmbeddingTrainer

    settings = TRAINING | {"max_steps": 8, "save_steps": 4}
    whole = train_delta_embedding(recipe, tmp_path / "whole", settings)
    step = DeltaEmbeddingTrainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 6:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(DeltaEmbeddingTrainer, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_delta_embedding(recipe, tmp_path / "cut", settings)
    assert not (tmp_path / "cut" / "model").exists()
    resumed = train_delta_embedding(recipe, tmp_path / "cut", settings)
    assert (whole.report["resumed_from_step"], resumed.report["resumed_from_step"]) == (0, 4)
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_too_few_texts_are_refused_before_any_work(recipe, tmp_path):
    with pytest.raises(ValueError, match="texts to train on, but one step takes 500"):
        train_delta_embedding(recipe, tmp_path / "run", TRAINING | {"per_device_train_batch_size": 500})
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="max_steps must be at least 1"):
        train_delta_embedding(recipe, tmp_path / "run", TRAINING | {"max_steps": 0})
