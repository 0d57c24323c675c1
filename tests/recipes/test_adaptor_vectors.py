import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from hf_matryoshka.data.retrieval import RetrievalDataset
from hf_matryoshka.recipes.adaptor_vectors import AdaptorVectors


def dataset(titles):
    texts = [f"The {animal} lives in a large river. It treats small cats and dogs of the city." for animal in ANIMALS]
    return RetrievalDataset(
        name="animals",
        corpus_ids=[f"d{row}" for row in range(4)],
        titles=titles,
        texts=texts,
        query_ids=["q0", "q1", "q2"],
        queries=["a fish", "a bird", "a drug"],
        qrels={"train": {"q0": {"d2": 2, "d0": 0}, "q2": {"d1": 0}}, "test": {"q1": {"d1": 1}}},
    )


ANIMALS = ["cat", "dog", "fish", "bird"]


def test_documents_are_encoded_with_their_titles(tiny_sentence_transformer):
    """The seventh defect of the original: trained on the text, used on title and text."""
    model = SentenceTransformer(tiny_sentence_transformer, device="cpu")
    data = dataset([f"On the {animal}" for animal in ANIMALS])
    vectors = AdaptorVectors.from_dataset(data, model)
    expected = model.encode([f"{title} {text}" for title, text in zip(data.titles, data.texts, strict=True)])
    assert np.allclose(vectors.corpus, expected, atol=1e-6)
    assert np.allclose(vectors.titles.vectors, model.encode(data.titles), atol=1e-6)
    assert vectors.titles.relevance == [{row: 1.0} for row in range(4)]
    assert len(vectors.sentences) == 8 and vectors.sentences.relevance[-1] == {3: 1.0}


def test_only_relevant_documents_of_the_split_are_labels(tiny_sentence_transformer):
    vectors = AdaptorVectors.from_dataset(dataset([""] * 4), tiny_sentence_transformer)
    assert vectors.queries.relevance == [{2: 2.0}]
    assert vectors.titles is None
    assert vectors.base_model == tiny_sentence_transformer


def test_vectors_of_an_api_with_the_labels_of_a_data_set():
    data = dataset([""] * 4)
    corpus, queries = np.eye(4, 8, dtype=np.float32), np.ones((3, 8), dtype=np.float32)
    vectors = AdaptorVectors.from_vectors(data, corpus, queries)
    assert vectors.queries.relevance == [{2: 2.0}] and vectors.titles is None
    with pytest.raises(ValueError, match="animals has 3 queries, but 2 vectors were given"):
        AdaptorVectors.from_vectors(data, corpus, queries[:2])
    with pytest.raises(ValueError, match="animals has no split 'dev'; it has test, train"):
        AdaptorVectors.from_vectors(data, corpus, queries, split="dev")


def test_no_labels_without_a_training_split(tiny_sentence_transformer):
    data = dataset([""] * 4)
    vectors = AdaptorVectors.from_dataset(data, tiny_sentence_transformer, split="dev", sentences_per_document=0)
    assert vectors.queries is None and vectors.sentences is None
