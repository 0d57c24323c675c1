import numpy as np
import pytest
import pytrec_eval

from hf_matryoshka.evaluation.metrics import ndcg_at_k, ndcg_of_ranking, rank_documents, recall_at_k


@pytest.fixture(scope="module")
def graded():
    """Random graded data with many ties: similarities take only a few values."""
    rng = np.random.default_rng(0)
    queries, documents = [f"q{i}" for i in range(40)], [f"d{i}" for i in range(60)]
    similarities = rng.integers(0, 6, size=(40, 60)).astype(np.float32) / 5
    qrels = {
        query: {
            str(name): int(rng.integers(-1, 4)) for name in rng.choice(documents, rng.integers(1, 20), replace=False)
        }
        for query in queries
    }
    qrels["q0"] = {"d3": 0}
    return similarities, queries, documents, qrels


def _trec(graded, measure, key):
    similarities, queries, documents, qrels = graded
    run = {
        query: {document: float(value) for document, value in zip(documents, row, strict=True)}
        for query, row in zip(queries, similarities, strict=True)
    }
    scores = pytrec_eval.RelevanceEvaluator(qrels, {measure}).evaluate(run)
    return np.array([scores[query][key] for query in queries])


@pytest.mark.parametrize("k", [1, 5, 10, 100])
def test_ndcg_equals_trec_eval_with_grades_and_ties(graded, k):
    values = ndcg_at_k(*graded, k=k)
    np.testing.assert_allclose(values, _trec(graded, f"ndcg_cut.{k}", f"ndcg_cut_{k}"), atol=1e-6)


def test_recall_equals_trec_eval(graded):
    np.testing.assert_allclose(recall_at_k(*graded, k=10), _trec(graded, "recall.10", "recall_10"), atol=1e-6)


def test_grades_matter():
    grades = {"a": 3, "b": 1}
    assert ndcg_of_ranking(["a", "b"], grades) == 1
    # DCG 1 + 3 / log2(3), ideal 3 + 1 / log2(3)
    assert ndcg_of_ranking(["b", "a"], grades) == pytest.approx((1 + 3 / np.log2(3)) / (3 + 1 / np.log2(3)))


def test_ties_go_to_the_larger_id_whatever_the_column_order():
    similarities = np.array([[0.5, 0.9, 0.5, 0.5]], dtype=np.float32)
    ids = ["b", "z", "c", "a"]
    order = [3, 0, 2, 1]
    first = [ids[i] for i in rank_documents(similarities, ids, 2)[0]]
    shuffled = [ids[i] for i in order]
    second = [shuffled[i] for i in rank_documents(similarities[:, order], shuffled, 2)[0]]
    assert first == second == ["z", "c"]


def test_bad_input_is_named():
    similarities = np.zeros((1, 2))
    with pytest.raises(ValueError, match="1 of 1 queries have no qrels, the first is 'x'"):
        ndcg_at_k(similarities, ["x"], ["a", "b"], {})
    with pytest.raises(ValueError, match=r"one column for each of the 3 documents.*\(1, 2\)"):
        rank_documents(similarities, ["a", "b", "c"], 1)
    with pytest.raises(ValueError, match="k must be at least 1"):
        rank_documents(similarities, ["a", "b"], 0)
