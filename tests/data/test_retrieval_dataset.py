import dataclasses

import pytest

from hf_matryoshka.data.retrieval import RetrievalDataset


def dataset(**changes):
    values = {
        "name": "toy",
        "corpus_ids": ["d1", "d2"],
        "titles": ["Cats", ""],
        "texts": ["purr.", "Dogs bark."],
        "query_ids": ["q1"],
        "queries": ["what purrs?"],
        "qrels": {"test": {"q1": {"d1": 2}}},
    }
    return RetrievalDataset(**{**values, **changes})


def test_documents_join_title_and_text():
    assert dataset().documents() == ["Cats purr.", "Dogs bark."]


def test_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset().name = "other"


def test_a_corpus_alone_is_enough():
    assert dataset(query_ids=[], queries=[], qrels={}).documents()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"corpus_ids": [], "titles": [], "texts": []}, "the corpus of 'toy' is empty"),
        ({"texts": ["one"]}, "2 corpus_ids but 1 texts"),
        ({"titles": []}, "2 corpus_ids but 0 titles"),
        ({"queries": []}, "1 query_ids but 0 queries"),
        (
            {"corpus_ids": ["d1", "d1"], "qrels": {}},
            r"repeats the document id 'd1' \(1 repeated document ids in all\)",
        ),
        ({"query_ids": ["q", "q"], "queries": ["a", "b"], "qrels": {}}, "repeats the query id 'q'"),
        (
            {"qrels": {"train": {}, "test": {"q1": {"d1": 1, "d8": 1, "d9": 0}}}},
            r"the 'test' qrels of 'toy' name the unknown document 'd8' \(2 unknown documents in all\)",
        ),
        (
            {"qrels": {"dev": {"q7": {"d1": 1}}}},
            r"the 'dev' qrels of 'toy' name the unknown query 'q7' \(1 unknown queries in all\)",
        ),
    ],
)
def test_bad_data_is_refused_in_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        dataset(**changes)
