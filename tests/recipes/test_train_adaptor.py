import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from hf_matryoshka.data.splits import unseen_queries
from hf_matryoshka.recipes import adaptor_stage, adaptor_validation
from hf_matryoshka.recipes import train_adaptor as training
from hf_matryoshka.recipes.adaptor_recipe import AdaptorRecipe
from hf_matryoshka.recipes.adaptor_validation import hold_out
from hf_matryoshka.recipes.adaptor_vectors import AdaptorVectors, Queries
from hf_matryoshka.surgery.adaptor_init import create_adaptor


DIMS = [2, 4, 16]


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors():
    """Documents in clusters, titles near their documents, and queries that share documents in pairs."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(12, 16))
    corpus = unit(centres[rng.integers(12, size=120)] + 0.5 * rng.normal(size=(120, 16)))
    titles = Queries(unit(corpus + 0.15 * rng.normal(size=corpus.shape)), [{row: 1.0} for row in range(120)])
    asked = np.repeat(rng.permutation(120)[:30], 2)
    queries = Queries(unit(corpus[asked] + 0.2 * rng.normal(size=(60, 16))), [{int(row): 1.0} for row in asked])
    return AdaptorVectors(corpus, titles=titles, queries=queries, base_model="some/model")


def recipe(**options):
    settings = {
        "matryoshka_dims": DIMS,
        "unsupervised_steps": 20,
        "supervised_steps": 20,
        "evaluations": 4,
        "random_candidates": 60,
        "num_neighbours": 10,
        **options,
    }
    return AdaptorRecipe(**settings)


TRAINING = {"per_device_train_batch_size": 32, "disable_tqdm": True, "use_cpu": True, "learning_rate": 5e-3}


def run(vectors, folder, **options):
    return training.train_adaptor(vectors, folder, recipe(**options), training=TRAINING)


def test_hold_out_shares_no_document(vectors):
    held = hold_out(vectors, 0.2, seed=0)
    assert 0 < len(held.queries) < 60 and len(held.documents) >= 24
    rows = {tuple(row): position for position, row in enumerate(vectors.corpus)}
    kept = {rows[tuple(row)] for row in held.train.corpus}
    assert kept.isdisjoint(held.documents.tolist()) and len(kept) + len(held.documents) == 120
    held_documents = {document for grades in held.queries.relevance for document in grades}
    assert held_documents <= set(held.documents.tolist())
    # Positions were rewritten with the corpus: each kept title is still nearest to its own document.
    for part in (held.train.titles, held.train.queries):
        own = [next(iter(grades)) for grades in part.relevance]
        assert (np.sum(part.vectors * held.train.corpus[own], axis=1) > 0.5).all()
    as_qrels = [
        {str(i): {rows[tuple(corpus[d])]: 1 for d in grades} for i, grades in enumerate(part.relevance)}
        for part, corpus in ((held.train.queries, held.train.corpus), (held.queries, vectors.corpus))
    ]
    assert len(unseen_queries(*as_qrels)) == len(held.queries)


def test_no_more_documents_are_held_out_than_validation_needs(vectors, monkeypatch):
    free = hold_out(replace(vectors, queries=None), 0.5, seed=0)
    assert len(free.documents) == 60
    monkeypatch.setattr(adaptor_validation, "MAX_VALIDATION_DOCUMENTS", 7)
    assert len(hold_out(replace(vectors, queries=None), 0.5, seed=0).documents) == 7


def test_two_stages_do_not_cost_the_held_out_documents_anything(vectors, tmp_path):
    trained = run(vectors, tmp_path / "run", tolerance=0.0)
    stages = trained.report["stages"]
    assert list(stages) == list(trained.after_stage) == ["unsupervised", "supervised"]
    assert stages["unsupervised"]["after"]["ndcg_at_10"] > stages["unsupervised"]["before"]["ndcg_at_10"]
    for result in stages.values():
        assert result["after"]["ndcg_at_10"] >= result["before"]["ndcg_at_10"]
        assert 0 < result["best_step"] <= 20 and result["share"] in (0, 0.25, 0.5, 0.75, 1)
        assert set(result["after"]) == {"ndcg_at_10", *(f"ndcg_at_10_d{dim}" for dim in DIMS)}
    assert trained.model.config.levels == ("d2", "d4", "d16")
    assert trained.model.config.base_model == "some/model"
    assert json.loads((tmp_path / "run" / "training.json").read_text()) == json.loads(json.dumps(trained.report))
    saved = type(trained.model).from_pretrained(tmp_path / "run" / "model")
    assert all(torch.equal(a, b) for a, b in zip(saved.parameters(), trained.model.parameters(), strict=True))


def test_the_seed_decides(vectors, tmp_path):
    weights = [
        run(vectors, tmp_path / name, seed=seed, supervised=False, validation_fraction=0).model.adaptor.down.weight
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_a_stage_that_does_not_help_is_dropped(vectors, tmp_path, caplog):
    shuffled = Queries(vectors.queries.vectors, vectors.queries.relevance[::-1])
    misled = AdaptorVectors(vectors.corpus, titles=vectors.titles, queries=shuffled)
    settings = recipe(unsupervised_steps=1, supervised_steps=6, evaluations=1, seed=3)
    trained = training.train_adaptor(misled, tmp_path, settings, training={**TRAINING, "learning_rate": 0.5})
    dropped = [name for name, result in trained.report["stages"].items() if result["share"] == 0]
    assert dropped and "does not improve" in caplog.text
    for name in dropped:
        result = trained.report["stages"][name]
        assert result["after"] == result["before"] and "refit" not in result


def test_the_supervised_stage_goes_as_far_as_held_out_documents_allow(vectors):
    model = create_adaptor(vectors.corpus, matryoshka_dims=DIMS)
    start = {key: torch.zeros_like(tensor) for key, tensor in model.state_dict().items()}
    end = {key: torch.ones_like(tensor) for key, tensor in start.items()}

    def measure(adaptor):
        return {"quality": 1.0 - adaptor.adaptor.up.bias[0].item()}  # falls with every step away from the start

    for least, share in ((-0.1, 1.0), (0.1, 0.75), (0.4, 0.5), (0.7, 0.25), (0.9, 0.0)):
        kept = adaptor_stage._keep(model, start, end, adaptor_stage.SHARES, measure, least)
        assert kept == {"share": share, "after": {"quality": 1.0 - share}}
        assert torch.all(model.adaptor.down.weight == share)


def test_an_interrupted_run_goes_on_and_ends_the_same(vectors, tmp_path, monkeypatch):
    whole = run(vectors, tmp_path / "whole")

    class Interruption(Exception):
        pass

    real, calls = adaptor_stage.AdaptorTrainer.training_step, []

    def interrupted(self, *args, **kwargs):
        calls.append(self.state.global_step)
        if len(calls) == 38:
            raise Interruption
        return real(self, *args, **kwargs)

    monkeypatch.setattr(adaptor_stage.AdaptorTrainer, "training_step", interrupted)
    with pytest.raises(Interruption):
        run(vectors, tmp_path / "resumed")
    before = len(calls)
    resumed = run(vectors, tmp_path / "resumed")
    assert len(calls) - before < before + 20  # not from the start
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    # A finished run is read, not trained again.
    done = len(calls)
    run(vectors, tmp_path / "resumed")
    assert len(calls) == done


@pytest.mark.parametrize("validated", [True, False])
def test_a_run_that_was_killed_after_a_stage_s_last_checkpoint_goes_on(vectors, tmp_path, validated):
    options = {} if validated else {"validation_fraction": 0}
    whole = run(vectors, tmp_path, **options)
    for name in ("model", "unsupervised/finished", "supervised/finished"):
        shutil.rmtree(tmp_path / name)
    (tmp_path / "training.json").unlink()
    resumed = run(vectors, tmp_path, **options)
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_another_run_in_the_folder_is_refused_unless_overwritten(vectors, tmp_path):
    settings = {"supervised": False, "validation_fraction": 0, "unsupervised_steps": 2}
    run(vectors, tmp_path, **settings)
    with pytest.raises(ValueError, match="holds other files or a run with other data or options"):
        run(vectors, tmp_path, **settings, seed=5)
    again = recipe(**settings, seed=5)
    training.train_adaptor(vectors, tmp_path, again, training=TRAINING, overwrite=True)


def test_vectors_alone_are_enough(vectors, tmp_path):
    trained = run(AdaptorVectors(vectors.corpus), tmp_path)
    result = trained.report["stages"]["unsupervised"]
    assert list(trained.report["stages"]) == ["unsupervised"]
    assert result["after"]["overlap_at_10"] >= result["before"]["overlap_at_10"]


def test_the_objective_of_the_paper(vectors, tmp_path):
    settings = {"objective": "paper", "init": "identity", "validation_fraction": 0}
    trained = run(vectors, tmp_path, **settings)
    assert list(trained.report["stages"]) == ["unsupervised", "supervised"]
    assert not trained.model.config.projection


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "best"}, "objective 'best' does not exist; choose one of rank, paper"),
        ({"objective": "paper"}, "needs init 'identity'"),
        ({"label_weight": 2.0}, "label_weight must be between 0 and 1"),
        ({"title_share": -1.0}, "title_share must be a number from 0 on, but is -1"),
        ({"validation_fraction": 1.0}, "validation_fraction must be in"),
        ({"unsupervised_steps": 0}, "unsupervised_steps must be at least 1"),
    ],
)
def test_bad_recipes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        recipe(**options)


def test_bad_vectors_are_refused(vectors):
    corpus = vectors.corpus.copy()
    corpus[3, 2] = np.nan
    with pytest.raises(ValueError, match="corpus vectors.*3"):
        AdaptorVectors(corpus)
    with pytest.raises(ValueError, match="at least 2 documents"):
        AdaptorVectors(vectors.corpus[:1])
    with pytest.raises(ValueError, match="queries vectors"):
        AdaptorVectors(vectors.corpus, queries=Queries(vectors.corpus[:2, :8], [{0: 1.0}, {1: 1.0}]))
    with pytest.raises(ValueError, match="document 120 is relevant to one of the queries, but there are 120"):
        AdaptorVectors(vectors.corpus, queries=Queries(vectors.corpus[:1], [{120: 1.0}]))
