import numpy as np
import pytest

from hf_matryoshka.data.neighbours import nearest_neighbours


def random_vectors(n, seed, dim=12):
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32) * 3


def brute_force(queries, corpus, k, exclude_self):
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    corpus = corpus / np.linalg.norm(corpus, axis=1, keepdims=True)
    similarities = queries @ corpus.T
    if exclude_self:
        np.fill_diagonal(similarities, -np.inf)
    indices = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    return indices, np.take_along_axis(similarities, indices, axis=1)


# 3 makes chunks of 3 queries and of 48 documents: most of the corpus lies in another chunk than a query.
@pytest.mark.parametrize("chunk_size", [1, 3, 1024])
@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("k", [1, 10, 99])
def test_equals_brute_force(chunk_size, exclude_self, k):
    corpus = random_vectors(100, seed=0)
    queries = corpus if exclude_self else random_vectors(37, seed=1)
    indices, similarities = nearest_neighbours(
        queries, corpus, k, exclude_self=exclude_self, chunk_size=chunk_size, device="cpu"
    )
    expected_indices, expected_similarities = brute_force(queries, corpus, k, exclude_self)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_allclose(similarities, expected_similarities, atol=1e-6)
    assert (indices.dtype, similarities.dtype) == (np.int64, np.float32)


def test_self_is_left_out_even_among_duplicates():
    corpus = np.ones((5, 3), dtype=np.float32)
    indices, similarities = nearest_neighbours(corpus, corpus, 4, exclude_self=True)
    for row, neighbours in enumerate(indices):
        assert sorted(neighbours) == [i for i in range(5) if i != row]
    np.testing.assert_allclose(similarities, 1, atol=1e-6)


def test_inputs_stay_as_they_are():
    corpus = random_vectors(20, seed=0)
    corpus.setflags(write=False)
    before = corpus.copy()
    nearest_neighbours(corpus, corpus, 3, exclude_self=True)
    np.testing.assert_array_equal(corpus, before)


@pytest.mark.parametrize(
    ("queries", "options", "sentence"),
    [
        (np.ones((4, 2)), {"k": 1}, "queries must be 3 wide, got vectors of width 2"),
        (np.full((4, 3), np.nan), {"k": 1}, "queries must be finite .* got NaN in row 0"),
        (np.ones((4, 3)), {"k": 0}, "k must lie between 1 and 5, .* got 0"),
        (np.ones((4, 3)), {"k": 6}, "k must lie between 1 and 5, .* got 6"),
        (np.ones((5, 3)), {"k": 5, "exclude_self": True}, "k must lie between 1 and 4"),
        (np.ones((4, 3)), {"k": 1, "exclude_self": True}, "the same vectors, got 4 and 5"),
        (np.ones((4, 3)), {"k": 1, "chunk_size": 0}, "chunk_size must be at least 1, got 0"),
    ],
)
def test_bad_input_is_refused(queries, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        nearest_neighbours(queries, np.ones((5, 3)), **options)
