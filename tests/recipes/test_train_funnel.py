"""Training a funnel from vectors and from texts."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModel

from hf_matryoshka.data.vectors import save_vectors
from hf_matryoshka.evaluation.curve import Curve
from hf_matryoshka.recipes import train_funnel as module
from hf_matryoshka.recipes.funnel_recipe import FunnelRecipe
from hf_matryoshka.recipes.train_funnel import train_funnel


SIZES = {"matryoshka_dims": [1, 2, 3], "encoder_sizes": [64], "predictor_sizes": [8], "decoder_sizes": [64]}
TRAINING = {"max_steps": 200, "per_device_train_batch_size": 128, "learning_rate": 5e-3, "use_cpu": True}
TRAINING |= {"disable_tqdm": True}


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    rng = np.random.default_rng(0)
    rows = np.sin(1.5 * rng.normal(size=(3000, 2)) @ rng.normal(size=(2, 24)) + rng.normal(size=24))
    path = tmp_path_factory.mktemp("vectors") / "x.arrow"
    save_vectors((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), path)
    return str(path)


@pytest.fixture
def recipe(vectors):
    return FunnelRecipe(vectors=vectors, **SIZES)


def test_a_run_is_better_than_pca_and_is_read_back(recipe, tmp_path):
    trained = train_funnel(recipe, tmp_path / "run", TRAINING)
    report, levels = trained.report, ["d1", "d2", "d3"]
    assert report["embeddings"] == {"train": 2400, "validation": 300, "test": 300} and report["steps"] == 200
    found = report["reconstruction"]
    assert set(found) == {"ours", "mean", "pca", "pca_uncentred", "pca_int8", "random_orthogonal", "truncation"}
    assert all(found["ours"][level] > found["pca"][level] + 0.01 for level in levels)
    assert all(report["gates"][level]["chosen"] >= report["gates"][level]["pca"] for level in levels)
    assert json.loads((tmp_path / "run" / "training.json").read_text()) == report
    curve = Curve.from_json(tmp_path / "run" / "curve.json")
    assert curve.qualities == pytest.approx(list(found["ours"].values())) and "pca" in curve.baselines
    overlap = Curve.from_json(tmp_path / "run" / "overlap_curve.json")
    assert overlap.metric == "neighbour_overlap_at_10" and set(overlap.baselines) == {
        "pca",
        "pca_uncentred",
        "pca_int8",
    }
    kept = report["neighbour_overlap"]
    assert overlap.qualities == pytest.approx(list(kept["ours"].values()))
    assert kept["ours"]["d3"] > kept["ours"]["d1"] and kept["ours"]["d2"] > kept["pca"]["d2"] - 0.05
    model = AutoModel.from_pretrained(tmp_path / "run" / "model")
    x = torch.randn(3, 24)
    assert torch.equal(model(x).reconstructions, trained.model(x).reconstructions)
    # The density of the latents fits those of the embeddings that were held out.
    coordinates = model.whiten(model.encode(torch.from_numpy(np.array(module.open_vectors(recipe.vectors)))))
    assert 0.7 < coordinates.var(0).mean() < 1.3
    # The same call again takes what is there; other options are another run.
    assert train_funnel(recipe, tmp_path / "run", TRAINING).report == report
    with pytest.raises(ValueError, match="holds other files or a run with other data or options"):
        train_funnel(replace(recipe, seed=1), tmp_path / "run", TRAINING)
    # On from there, as a run of its own.
    again = FunnelRecipe(vectors=recipe.vectors, funnel_path=str(tmp_path / "run"))
    more = train_funnel(again, tmp_path / "more", TRAINING | {"max_steps": 10})
    assert more.report["before"]["d1"] < 1.1 * report["after"]["d1"] and more.model.config.levels == tuple(levels)


def test_an_interrupted_run_goes_on_to_the_same_end(recipe, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    training = TRAINING | {"max_steps": 20, "save_steps": 5}
    whole = train_funnel(recipe, tmp_path / "whole", training)
    step = module.FunnelTrainer.training_step

    def dies(self, *args, **kwargs):
        if self.state.global_step == 12:
            raise Killed
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module.FunnelTrainer, "training_step", dies)
        with pytest.raises(Killed):
            train_funnel(recipe, tmp_path / "run", training)
    assert not (tmp_path / "run" / "model").exists()
    resumed = train_funnel(recipe, tmp_path / "run", training)
    assert resumed.report["resumed_from_step"] == 10
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_texts_are_embedded_by_the_base_model(tmp_path, tiny_sentence_transformer, monkeypatch):
    monkeypatch.setenv("HF_MATRYOSHKA_CACHE", str(tmp_path / "cache"))
    words = "a the of in is and cat dog bird fish river city gene cell protein".split()
    rng = np.random.default_rng(0)
    texts = sorted({" ".join(rng.choice(words, size=rng.integers(2, 9))) for _ in range(200)})
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    recipe = FunnelRecipe(texts=[str(tmp_path / "texts.txt")], base_model_path=tiny_sentence_transformer, **SIZES)
    for convention in (None, "raw_mean"):
        own = replace(recipe, embedding_convention=convention)
        found = train_funnel(own, tmp_path / str(convention), TRAINING | {"max_steps": 2}).model.config
        assert found.embedding_convention == convention and found.base_model == tiny_sentence_transformer
        assert (found.embedding_norm == pytest.approx(1, abs=1e-4)) == (convention is None)
    # A funnel of one convention is not trained on with embeddings of another.
    on = FunnelRecipe(
        texts=recipe.texts, base_model_path=recipe.base_model_path, funnel_path=str(tmp_path / "raw_mean")
    )
    with pytest.raises(ValueError, match="was trained on embeddings of the convention 'raw_mean', not None"):
        train_funnel(on, tmp_path / "on", TRAINING)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matryoshka_dims": [4, 2]}, "strictly increasing"),
        ({"matryoshka_dims": [4, 99]}, "only 24 dimensions can be encoded"),
        ({"kind": "vae"}, "kind 'vae' does not exist"),
        ({"preset": "x"}, "preset 'x' does not exist"),
        ({"embedding_convention": "raw_mean"}, "all have unit length, so they follow no 'raw_mean'"),
    ],
)
def test_bad_options_are_refused_before_any_work(recipe, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        train_funnel(replace(recipe, **options), tmp_path / "run", TRAINING)
    assert not (tmp_path / "run").exists()


def test_what_does_not_fit_is_refused(recipe, vectors, tmp_path, tiny_sentence_transformer):
    with pytest.raises(ValueError, match="there are 2400 texts to train on, but one step takes 4096"):
        train_funnel(recipe, tmp_path / "run", TRAINING | {"per_device_train_batch_size": 4096})
    with pytest.raises(ValueError, match="embeddings come from vectors or from texts"):
        FunnelRecipe(vectors=vectors, texts=["x.txt"])
    with pytest.raises(ValueError, match="give texts"):
        FunnelRecipe()
    with pytest.raises(ValueError, match="kind is read from funnel_path; leave it out"):
        FunnelRecipe(vectors=vectors, funnel_path="x", kind="flow")
    with pytest.raises(FileNotFoundError, match="holds no funnel"):
        train_funnel(FunnelRecipe(vectors=vectors, funnel_path=str(tmp_path)), tmp_path / "run", TRAINING)
    with pytest.raises(ValueError, match="test_fraction must be in"):
        replace(recipe, test_fraction=0.6)
    other = np.random.default_rng(0).normal(size=(300, 10)).astype(np.float32)
    save_vectors(other, tmp_path / "other.npy")
    train_funnel(recipe, tmp_path / "first", TRAINING | {"max_steps": 1})
    on = FunnelRecipe(vectors=str(tmp_path / "other.npy"), funnel_path=str(tmp_path / "first"))
    with pytest.raises(ValueError, match="is a funnel of embeddings of width 24, but these have 10"):
        train_funnel(on, tmp_path / "run", TRAINING)
