import numpy as np
import pytest

from hf_matryoshka.data.retrieval import RetrievalDataset
from hf_matryoshka.evaluation.baselines import BASELINES, fit_baselines, unit
from hf_matryoshka.evaluation.metrics import ndcg_at_k
from hf_matryoshka.evaluation.retrieval import score_baselines, score_retrieval


DOCUMENTS, QUERIES, WIDTH = 120, 60, 16


@pytest.fixture(scope="module")
def data():
    """Queries are noisy copies of documents; half of the test queries share their document with a train query."""
    rng = np.random.default_rng(0)
    corpus = unit(rng.normal(size=(DOCUMENTS, WIDTH)) * np.linspace(2, 0.5, WIDTH))
    owners = rng.permutation(DOCUMENTS)[:QUERIES]
    queries = unit(corpus[owners] + 0.15 * rng.normal(size=(QUERIES, WIDTH)))
    names = [f"q{i:02d}" for i in reversed(range(QUERIES))]
    graded = [{f"d{owner}": 2, f"d{(owner + 1) % DOCUMENTS}": 1} for owner in owners]
    qrels = dict(zip(names, graded, strict=True))
    train = {name: {next(iter(qrels[name])): 1} for name in names[:15]}
    dataset = RetrievalDataset(
        name="toy",
        corpus_ids=[f"d{i}" for i in range(DOCUMENTS)],
        titles=[""] * DOCUMENTS,
        texts=[f"document {i}" for i in range(DOCUMENTS)],
        query_ids=[*names, *(f"t{name}" for name in names[:15])],
        queries=[f"query {name}" for name in names] + [f"train {name}" for name in names[:15]],
        qrels={"test": qrels, "train": {f"t{name}": grades for name, grades in train.items()}},
    )
    return dataset, np.concatenate([queries, queries[:15]]), corpus


def _truncate(vectors, dim, kind):
    return vectors[:, :dim]


def test_values_are_those_of_the_metric_in_the_order_of_the_ids(data):
    dataset, queries, corpus = data
    curve = score_retrieval(_truncate, queries, corpus, dataset, [16, 4], system="truncation")["test"]
    assert curve.levels == ["d4", "d16"]
    assert (curve.metric, curve.system) == ("ndcg_at_10", "truncation")
    order = sorted(range(QUERIES), key=dataset.query_ids.__getitem__)
    for point in curve.points:
        similarities = unit(queries[order, : point.dim]) @ unit(corpus[:, : point.dim]).T
        names = [dataset.query_ids[i] for i in order]
        expected = ndcg_at_k(similarities, names, dataset.corpus_ids, dataset.qrels["test"])
        np.testing.assert_allclose(point.per_query, expected)
        assert point.quality == pytest.approx(expected.mean())
        assert point.low < point.quality < point.high
        assert point.cost == {"bytes_per_vector": 4 * point.dim}


def test_queries_with_unseen_documents_are_a_split_of_their_own(data):
    dataset, queries, corpus = data
    curves = score_retrieval(_truncate, queries, corpus, dataset, [16], system="truncation")
    assert list(curves) == ["test", "test_unseen"]
    assert curves["test_unseen"].split == "test_unseen"
    seen = {document for grades in dataset.qrels["train"].values() for document in grades}
    order = sorted(dataset.qrels["test"])
    rows = [row for row, name in enumerate(order) if not seen & set(dataset.qrels["test"][name])]
    assert 0 < len(rows) < QUERIES
    all_values, unseen = (curves[name].points[0].per_query for name in ("test", "test_unseen"))
    np.testing.assert_array_equal(unseen, all_values[rows])


def test_disjoint_training_data_gives_no_second_split(data):
    dataset, queries, corpus = data
    alone = RetrievalDataset(**{**vars(dataset), "qrels": {"test": dataset.qrels["test"]}})
    assert list(score_retrieval(_truncate, queries, corpus, alone, [16], system="x")) == ["test"]


def test_the_transform_learns_which_side_it_maps(data):
    dataset, queries, corpus = data
    sides = []

    def transform(vectors, dim, kind):
        sides.append((kind, len(vectors)))
        return vectors[:, :dim]

    score_retrieval(transform, queries, corpus, dataset, [8], system="x")
    assert sorted(sides) == [("document", DOCUMENTS), ("query", QUERIES)]


def test_lengths_of_vectors_do_not_matter(data):
    dataset, queries, corpus = data
    scale = np.random.default_rng(1).uniform(0.1, 9, size=(DOCUMENTS, 1)).astype(np.float32)
    a, b = (
        score_retrieval(_truncate, queries, vectors, dataset, [8], system="x")["test"].points[0].per_query
        for vectors in (corpus, corpus * scale)
    )
    np.testing.assert_allclose(a, b)


def test_every_baseline_is_scored_with_its_own_bytes(data):
    dataset, queries, corpus = data
    curves = score_baselines(queries, corpus, dataset, [4, 16])
    assert list(curves["test"]) == list(curves["test_unseen"]) == list(BASELINES)
    full = {name: curve["d16"].quality for name, curve in curves["test"].items()}
    for name in ("random_dims", "variance_order", "svd"):
        assert full[name] == pytest.approx(full["truncation"])
    assert curves["test"]["binary"]["d16"].cost == {"bytes_per_vector": 2}
    svd = fit_baselines(corpus, ["svd"])["svd"]
    alone = score_retrieval(svd.transform, queries, corpus, dataset, [4, 16], system="svd")["test"]
    assert curves["test"]["svd"].qualities == alone.qualities


def test_bad_input_is_named(data):
    dataset, queries, corpus = data
    with pytest.raises(ValueError, match="split 'dev' does not exist in toy; its splits are: test, train"):
        score_retrieval(_truncate, queries, corpus, dataset, [4], system="x", split="dev")
    with pytest.raises(ValueError, match="one vector a document: it has 120, but 119"):
        score_retrieval(_truncate, queries, corpus[1:], dataset, [4], system="x")
    with pytest.raises(ValueError, match="query vectors must be 16 wide"):
        score_retrieval(_truncate, queries[:, :8], corpus, dataset, [4], system="x")
