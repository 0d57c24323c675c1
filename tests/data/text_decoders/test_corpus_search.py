import tracemalloc

import numpy as np
import pytest

from hf_matryoshka.data.text_decoders import corpus_search
from hf_matryoshka.data.text_decoders.corpus_search import nearest_rows


def random_vectors(n, seed, dim=12):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32) * 3


def brute_force(queries, corpus, k, exclude=()):
    queries, corpus = queries.astype(np.float64), corpus.astype(np.float64)
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    cosines = queries @ (corpus / np.linalg.norm(corpus, axis=1, keepdims=True)).T
    exclude = np.atleast_2d(np.array(exclude, dtype=int))
    for query, rows in enumerate(np.broadcast_to(exclude, (len(queries), exclude.shape[1]))):
        cosines[query, rows] = -np.inf
    rows = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(cosines, rows, axis=1)


@pytest.fixture(params=[(7, 5), (1000, 1000)], ids=["many blocks", "one block"])
def blocks(request, monkeypatch):
    """Chunks of queries and blocks of rows, small enough that both end inside the data, or not."""
    monkeypatch.setattr(corpus_search, "QUERY_CHUNK", request.param[0])
    monkeypatch.setattr(corpus_search, "ROW_BLOCK", request.param[1])


@pytest.mark.parametrize("k", [1, 4, 90])
@pytest.mark.parametrize("exclude", [None, [3, 99, 3, 0], "own rows", "two rows each"])
def test_equals_brute_force(blocks, k, exclude):
    corpus, queries = random_vectors(100, seed=0), random_vectors(31, seed=1)
    if exclude == "own rows":
        queries = corpus[:31] + np.float32(0.01)
        exclude = np.arange(31)[:, None]
    elif exclude == "two rows each":
        exclude = np.random.default_rng(2).integers(0, 100, (31, 2))
    rows, cosines = nearest_rows(queries, corpus, k, exclude)
    expected_rows, expected_cosines = brute_force(queries, corpus, k, () if exclude is None else exclude)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(cosines, expected_cosines, atol=1e-6)
    assert (rows.dtype, cosines.dtype) == (np.int64, np.float64)


def test_the_first_of_equal_rows_wins(blocks):
    """Also where a matrix product in float32 gives equal rows different last bits."""
    rng = np.random.default_rng(0)
    different = random_vectors(9, seed=3, dim=333)
    places = rng.integers(0, 9, 203)
    corpus = different[places]
    queries = np.concatenate([different, random_vectors(8, seed=4, dim=333)])
    rows, cosines = nearest_rows(queries, corpus, 40)
    for found, ranked in zip(rows, brute_force(queries, different, 9)[0], strict=True):
        expected = np.concatenate([np.flatnonzero(places == group) for group in ranked])[:40]
        np.testing.assert_array_equal(found, expected)
    assert (np.diff(cosines) <= 0).all()


def test_a_zero_vector_has_cosine_zero(blocks):
    corpus = np.array([[-1.0, 0.0], [0.0, 0.0], [1.0, 1.0]], dtype=np.float32)
    rows, cosines = nearest_rows(np.array([[0.0, 0.0], [-1.0, -1.0]], dtype=np.float32), corpus, 3)
    assert rows.tolist() == [[0, 1, 2], [0, 1, 2]]
    np.testing.assert_allclose(cosines, [[0, 0, 0], [np.sqrt(0.5), 0, -1]], atol=1e-7)


def test_memory_stays_flat(monkeypatch, tmp_path):
    monkeypatch.setattr(corpus_search, "QUERY_CHUNK", 16)
    monkeypatch.setattr(corpus_search, "ROW_BLOCK", 512)
    np.save(tmp_path / "corpus.npy", random_vectors(40_000, seed=0, dim=64))
    corpus = np.load(tmp_path / "corpus.npy", mmap_mode="r")
    queries = np.array(corpus[::1000])
    tracemalloc.start()
    rows, _ = nearest_rows(queries, corpus, 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(rows[:, 0], np.arange(0, 40_000, 1000))
    assert peak < 1_000_000 < corpus.nbytes / 10


@pytest.mark.parametrize(
    ("top_k", "exclude", "sentence"),
    [
        (0, None, "top_k must lie between 1 and 5, .* got 0"),
        (6, None, "top_k must lie between 1 and 5, .* got 6"),
        (4, [0, 1, 1], "top_k must lie between 1 and 3, .* got 4"),
        (5, [[0], [0]], "top_k must lie between 1 and 4, .* got 5"),
        (1, [5], "exclude must hold rows from 0 to 4, got 5 to 5"),
        (1, [-1], "exclude must hold rows from 0 to 4, got -1 to -1"),
        (1, [[0], [0], [0]], r"for 2 queries, \(2, e\), got int64 of shape \(3, 1\)"),
        (1, [0.5], "exclude must be row numbers, .* got float64"),
    ],
)
def test_bad_input_is_refused(top_k, exclude, sentence):
    with pytest.raises(ValueError, match=sentence):
        nearest_rows(np.ones((2, 3), dtype=np.float32), np.ones((5, 3), dtype=np.float32), top_k, exclude)
