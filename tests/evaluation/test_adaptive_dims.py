import numpy as np
import pytest

from hf_matryoshka.evaluation.adaptive_dims import AdaptiveSearch


def vectors(count, seed, documents):
    """Queries near documents, with most of what tells them apart in the leading dimensions."""
    rng = np.random.default_rng(seed)
    scale = 0.75 ** np.arange(32)
    noise = rng.standard_normal((count, 32)) * scale * rng.uniform(0.05, 0.5, (count, 1))
    return documents[rng.integers(len(documents), size=count)] + noise


@pytest.fixture(scope="module")
def data():
    documents = np.random.default_rng(0).standard_normal((200, 32)) * 0.75 ** np.arange(32)
    return vectors(600, 1, documents), vectors(2000, 2, documents), documents


def test_queries_that_are_done_early_have_the_same_best_document(data):
    calibration, queries, documents = data
    search = AdaptiveSearch.calibrate(calibration, documents, (6, 8, 32), max_error=0.05)
    found, used = search.search(queries, documents, top_k=5)
    everything = AdaptiveSearch((32,), (), 0.05, 0.95).search(queries, documents, top_k=5)[0]
    assert found.shape == (2000, 5) and set(used) == {6, 8, 32}
    for dim in (6, 8):
        early = used == dim
        assert 0.02 < early.mean() and (found[early, 0] != everything[early, 0]).mean() <= 0.05
    assert np.array_equal(found[used == 32], everything[used == 32])
    # A stricter promise asks for more.
    strict = AdaptiveSearch.calibrate(calibration, documents, (6, 8, 32), max_error=0.01)
    assert strict.search(queries, documents)[1].mean() > used.mean()


def test_a_dimension_that_says_nothing_is_never_used(data):
    calibration, queries, documents = data
    mute_queries, mute_documents = calibration.copy(), documents.copy()
    rng = np.random.default_rng(3)
    mute_queries[:, :4], mute_documents[:, :4] = rng.standard_normal((600, 4)), rng.standard_normal((200, 4))
    search = AdaptiveSearch.calibrate(mute_queries, mute_documents, (4, 32))
    assert search.margins == (np.inf,)
    assert set(search.search(mute_queries, mute_documents)[1]) == {32}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": (8, 4)}, "dims must be at least two, increasing, up to 32"),
        ({"dims": (8, 64)}, "dims must be at least two, increasing, up to 32"),
        ({"max_error": 0}, "max_error and confidence must be between 0 and 1"),
        ({"documents": np.ones((1, 32))}, "at least two documents, but there are 1"),
    ],
)
def test_bad_input_is_named(data, options, message):
    arguments = {"queries": data[0], "documents": data[2], "dims": (4, 32)} | options
    with pytest.raises(ValueError, match=message):
        AdaptiveSearch.calibrate(**arguments)
