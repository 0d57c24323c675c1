import mteb
import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from hf_matryoshka.data.retrieval import RetrievalDataset
from hf_matryoshka.evaluation.baselines import unit
from hf_matryoshka.evaluation.evaluate_levels import evaluate_levels
from hf_matryoshka.evaluation.mteb_tasks import classification_task, retrieval_task, sts_task
from hf_matryoshka.evaluation.retrieval import score_baselines, score_retrieval
from hf_matryoshka.modeling.configuration_matryoshka_adaptor import MatryoshkaAdaptorConfig
from hf_matryoshka.modeling.modeling_matryoshka_adaptor import MatryoshkaAdaptorModel
from hf_matryoshka.modeling.st_matryoshka_adaptor import MatryoshkaAdaptor
from hf_matryoshka.modeling.st_matryoshka_truncate import MatryoshkaTruncate


WORDS = "cat dog bird fish river city gene cell protein drug treats causes".split()


@pytest.fixture(scope="module")
def model(tiny_sentence_transformer):
    return SentenceTransformer(tiny_sentence_transformer, device="cpu")


@pytest.fixture(scope="module")
def adaptor():
    config = MatryoshkaAdaptorConfig(embedding_dim=32, matryoshka_dims=[4, 16, 32], kind="linear")
    adaptor = MatryoshkaAdaptorModel(config)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(32, 32)))
    adaptor.adaptor.projection.weight.data = torch.tensor(rotation, dtype=torch.float32)
    return adaptor


@pytest.fixture(scope="module")
def dataset():
    pairs = [(a, b) for a in WORDS for b in WORDS if a != b][:60]
    return RetrievalDataset(
        name="Words",
        corpus_ids=[f"d{i}" for i in range(60)],
        titles=[""] * 60,
        texts=[f"the {a} of the {b} is {i}" for i, (a, b) in enumerate(pairs)],
        query_ids=[f"q{i}" for i in range(30)],
        queries=[f"{a} in a {b}" for a, b in pairs[:30]],
        qrels={"test": {f"q{i}": {f"d{i}": 2, f"d{i + 30}": 1} for i in range(30)}},
    )


@pytest.fixture
def encoded(monkeypatch):
    texts, original = [], SentenceTransformer.encode

    def encode(self, batch, **kwargs):
        texts.extend(batch)
        return original(self, batch, **kwargs)

    monkeypatch.setattr(SentenceTransformer, "encode", encode)
    return texts


def _evaluate(model, tasks, **kwargs):
    return evaluate_levels(model, tasks, progress=False, latency_repeats=0, **kwargs)


def test_every_level_and_baseline_from_one_encode(model, adaptor, dataset, encoded):
    # Not binary: its similarities tie, and rounding breaks the ties.
    wanted = ["truncation", "svd", "int8"]
    curve = _evaluate(model, retrieval_task("Words", dataset), adaptor=adaptor, baselines=wanted)
    assert sorted(encoded) == sorted([*dataset.documents(), *dataset.queries])
    assert curve.levels == ["d4", "d16", "d32"]
    assert (curve.metric, curve.split, curve.system) == ("ndcg_at_10", "test", "ours")
    assert list(curve.baselines) == wanted
    assert curve["d4"].cost == adaptor.cost("d4")

    # The same numbers without MTEB, query by query.
    queries, corpus = model.encode(dataset.queries), model.encode(dataset.documents())
    rotation = adaptor.adaptor.projection.weight.detach().numpy()
    data = (queries, corpus, dataset, [4, 16, 32])
    ours = score_retrieval(lambda vectors, dim, kind: (vectors @ rotation.T)[:, :dim], *data, system="ours")["test"]
    alone = {"ours": ours, **score_baselines(*data, names=wanted)["test"]}
    for name, expected in alone.items():
        found = curve if name == "ours" else curve.baselines[name]
        for a, b in zip(found.points, expected.points, strict=True):
            np.testing.assert_allclose(a.per_query, b.per_query, atol=1e-6)
            assert a.quality == pytest.approx(b.quality, abs=1e-5)
            assert (a.low, a.high) == pytest.approx((b.low, b.high))
            assert a.cost["bytes_per_vector"] == b.cost["bytes_per_vector"]
    assert len({curve["d4"].quality, *(baseline["d4"].quality for baseline in curve.baselines.values())}) > 2


def test_a_model_that_carries_the_adaptor_equals_base_and_adaptor(model, adaptor, dataset, encoded, tmp_path):
    whole = SentenceTransformer(modules=[*model, MatryoshkaAdaptor(adaptor)], device="cpu")
    task = retrieval_task("Words", dataset)
    expected = _evaluate(model, task, adaptor=adaptor, baselines=["svd"])
    encoded.clear()
    assert _evaluate(whole, task, baselines=["svd"]).rows() == expected.rows()
    assert len(encoded) == 90
    # After a save the code is remote code, with classes of its own.
    whole.save_pretrained(str(tmp_path / "whole"))
    again = SentenceTransformer(str(tmp_path / "whole"), trust_remote_code=True, device="cpu")
    assert _evaluate(again, task, baselines=["svd"], levels=["d16"]).qualities == [expected["d16"].quality]


def test_prefixes_of_a_model_nested_by_training(model, dataset):
    task = retrieval_task("Words", dataset)
    curve = _evaluate(model, task, levels=["d8", 32])
    assert curve.levels == ["d8", "d32"]
    assert "truncation" not in curve.baselines
    truncated = SentenceTransformer(modules=[*model, MatryoshkaTruncate([8, 32])], device="cpu")
    again = _evaluate(truncated, task, baselines=["truncation"])
    assert again.qualities == curve.qualities == again.baselines["truncation"].qualities


def test_any_other_map(model, dataset):
    curve = _evaluate(
        model,
        retrieval_task("Words", dataset),
        transform=lambda vectors, level: unit(vectors[:, -level:]),
        levels=[16, 4],
        baselines=False,
        num_vectors=1000,
    )
    assert curve.levels == ["d4", "d16"]
    assert curve.baselines == {}
    assert curve["d4"].cost == {"bytes_per_vector": 16, "memory_mb": 0.016}


def test_sts_and_classification_have_intervals_too(model, adaptor, tmp_path):
    rng = np.random.default_rng(0)
    lines = [
        f"the {a} of the {b},a {c} in {b},{5 * (a == c) * 0.8 + rng.uniform():.2f}"
        for a, b, c in rng.choice(WORDS[:4], size=(50, 3))
    ]
    (tmp_path / "sts-test.csv").write_text("\n".join(lines))
    for split in ("train", "test"):
        rows = [f"the {rng.choice(WORDS)} of a {WORDS[i % 3]},{WORDS[i % 3]}" for i in range(60)]
        (tmp_path / f"intents_{split}.csv").write_text("\n".join(["text,label", *rows]))
    (tmp_path / "sts").mkdir()
    (tmp_path / "sts-test.csv").rename(tmp_path / "sts" / "sts-test.csv")
    tasks = [sts_task("STSBenchmark", tmp_path / "sts"), classification_task("Banking77Classification", tmp_path)]
    curves = _evaluate(model, tasks, adaptor=adaptor, levels=["d32"], baselines=["svd"])
    assert list(curves) == ["STSBenchmark", "Banking77Classification"]
    assert [curve.metric for curve in curves.values()] == ["cosine_spearman", "accuracy"]
    for curve, count in zip(curves.values(), (50, 60), strict=True):
        for point in [*curve.points, *curve.baselines["svd"].points]:
            assert point.per_query.shape == (count,)
            assert point.quality == pytest.approx(point.per_query.mean(), abs=1e-5)
            assert point.low < point.quality < point.high
        assert curve.baselines["svd"]["d32"].quality == pytest.approx(curve["d32"].quality, abs=0.02)


def test_result_files_keep_systems_and_levels_apart(model, adaptor, dataset, tmp_path):
    task = retrieval_task("Words", dataset)
    options = {"levels": ["d4", "d32"], "baselines": ["truncation"]}
    curve = _evaluate(model, task, adaptor=adaptor, results_dir=tmp_path, name="me/minilm", **options)
    cache = mteb.ResultCache(tmp_path)
    for name, found in (("me/minilm", curve), ("me/minilm-truncation", curve.baselines["truncation"])):
        results = cache.load_results(models=[name], load_experiments="match_name").model_results
        scores = {result.experiment_name: result.task_results[0].get_score() for result in results}
        assert scores == {"embed_dim_4": found["d4"].quality, "embed_dim_32": found["d32"].quality}
        assert len({result.model_revision for result in results}) == 1


def test_the_task_is_left_as_it_was(model, dataset):
    task = mteb.get_task("STSBenchmark.v2")
    rows = {"sentence1": WORDS[:8], "sentence2": WORDS[4:]}
    task.dataset = {
        "validation": Dataset.from_dict({**rows, "score": list(range(8))}),
        "test": Dataset.from_dict({**rows, "score": list(range(8, 0, -1))}),
    }
    task.data_loaded = True
    curve = _evaluate(model, task, levels=[8], baselines=False, split="validation")
    assert curve.split == "validation"
    assert list(task.eval_splits) == ["validation", "test"]
    assert _evaluate(model, task, levels=[8], baselines=False).split == "test"


def test_bad_arguments_are_named_before_any_work(model, adaptor, dataset, encoded):
    task = retrieval_task("Words", dataset)
    cases = [
        ({"adaptor": adaptor, "levels": ["d5"]}, "level 'd5' does not exist"),
        ({"adaptor": adaptor, "baselines": ["pca"]}, "baseline 'pca' does not exist"),
        ({"adaptor": adaptor, "split": "dev"}, "split 'dev' does not exist in Words; choose one of test"),
        ({"adaptor": adaptor, "transform": lambda v, k: v}, "adaptor or transform, not both"),
        ({"transform": lambda v, k: v}, "transform needs levels"),
        ({"levels": [64]}, "level 64 does not exist: give widths from 1 to 32"),
        ({}, "the model carries no adaptor"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            _evaluate(model, task, **arguments)
    with pytest.raises(ValueError, match="mteb has no task 'SciFakt'"):
        _evaluate(model, "SciFakt", adaptor=adaptor)
    wide = MatryoshkaAdaptorModel(MatryoshkaAdaptorConfig(embedding_dim=48, matryoshka_dims=[8, 48]))
    with pytest.raises(ValueError, match="adaptor takes vectors of width 48, but the model gives width 32"):
        _evaluate(model, task, adaptor=wide)
    assert encoded == []


def test_a_task_that_cannot_be_fetched_names_the_offline_route(model, adaptor):
    with pytest.raises(OSError, match="mteb task NFCorpus is not here .*mteb_tasks to put local files behind"):
        _evaluate(model, "NFCorpus", adaptor=adaptor)
