import random
from pathlib import Path

import pytest

from hf_matryoshka.data.beir import load_beir
from hf_matryoshka.data.splits import document_disjoint_split, unseen_queries


SCIFACT = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "scifact"


def sparse_qrels(num_queries=200, num_documents=400, seed=0):
    rng = random.Random(seed)
    return {
        f"q{i}": {f"d{rng.randrange(num_documents)}": rng.choice([1, 1, 2]) for _ in range(rng.choice([1, 1, 1, 2]))}
        for i in range(num_queries)
    }


def dense_qrels(num_queries=100, num_documents=300, seed=0):
    rng = random.Random(seed)
    return {f"q{i}": {f"d{d}": 1 for d in rng.sample(range(num_documents), 20)} for i in range(num_queries)}


def relevant(qrels):
    return {d for grades in qrels.values() for d, grade in grades.items() if grade > 0}


def test_no_document_is_relevant_in_both_parts():
    qrels = sparse_qrels()
    train, validation = document_disjoint_split(qrels, 0.2, seed=0)
    assert not relevant(train) & relevant(validation)
    assert len(validation) == 40
    # Nothing is lost or changed where whole components are held out.
    assert {**train, **validation} == qrels
    assert not train.keys() & validation.keys()


def test_shared_documents_keep_their_queries_together():
    qrels = {"a": {"x": 1}, "b": {"x": 1, "y": 1}, "c": {"y": 2}, "d": {"z": 1}, "e": {"w": 1}, "f": {"v": 1}}
    for seed in range(10):
        train, validation = document_disjoint_split(qrels, 0.5, seed)
        assert len({"a", "b", "c"} & validation.keys()) in (0, 3)
        assert len(validation) == 3


def test_a_grade_of_zero_ties_nothing_together():
    qrels = {"a": {"x": 1, "y": 0}, "b": {"y": 1, "x": 0}}
    train, validation = document_disjoint_split(qrels, 0.5, seed=0)
    assert len(train) == len(validation) == 1


def test_a_query_with_nothing_relevant_is_never_held_out():
    qrels = {**sparse_qrels(20), **{f"empty{i}": {"d1": 0} for i in range(200)}}
    train, validation = document_disjoint_split(qrels, 0.3, seed=1)
    assert len(validation) == 6
    assert sum(query.startswith("empty") for query in train) == 200


def test_the_seed_decides_and_the_order_of_the_file_does_not():
    qrels = sparse_qrels()
    shuffled = dict(sorted(qrels.items(), key=lambda item: item[0][::-1]))
    first = document_disjoint_split(qrels, 0.2, seed=3)
    assert document_disjoint_split(shuffled, 0.2, seed=3) == first
    assert document_disjoint_split(qrels, 0.2, seed=4) != first


def test_one_large_component_is_cut(caplog):
    qrels = dense_qrels()
    train, validation = document_disjoint_split(qrels, 0.2, seed=0)
    assert not relevant(train) & relevant(validation)
    assert not train.keys() & validation.keys()
    assert len(validation) == 20
    assert len(train) == 80
    assert len(relevant(train)) > 0.7 * len(relevant(qrels))
    assert all(grades.items() <= qrels[q].items() for part in (train, validation) for q, grades in part.items())
    assert "the validation split holds out documents as well" in caplog.text


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match=f"validation_fraction must lie between 0 and 1, got {fraction}"):
        document_disjoint_split(sparse_qrels(), fraction, seed=0)


@pytest.mark.parametrize(
    "qrels", [{}, {"a": {"x": 1}}, {"a": {"x": 1}, "b": {"x": 1}}, {"a": {"x": 0}, "b": {"y": 0}}]
)
def test_nothing_to_divide_is_said(qrels):
    with pytest.raises(ValueError, match="cannot hold out validation queries"):
        document_disjoint_split(qrels, 0.5, seed=0)


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_neither_part_is_ever_empty(fraction):
    for qrels in (sparse_qrels(2), sparse_qrels(3), dense_qrels(2, 25), {"a": {"x": 1}, "b": {"x": 1, "y": 1}}):
        train, validation = document_disjoint_split(qrels, fraction, seed=0)
        assert relevant(train)
        assert relevant(validation)


def test_unseen_queries():
    train = {"t": {"x": 1, "y": 0}}
    test = {"c": {"z": 1}, "a": {"x": 1, "z": 1}, "b": {"y": 1, "x": 0}}
    assert unseen_queries(train, test) == ["c", "b"]


@pytest.mark.skipif(not SCIFACT.is_dir(), reason="../shared/data/scifact is not on this machine")
def test_real_scifact_has_104_unseen_queries():
    qrels = load_beir(SCIFACT).qrels
    assert len(unseen_queries(qrels["train"], qrels["test"])) == 104
    train, validation = document_disjoint_split(qrels["train"], 0.2, seed=0)
    assert not relevant(train) & relevant(validation)
    assert len(validation) == 162
    assert unseen_queries(train, validation) == list(validation)
