import numpy as np
import pytest

from hf_matryoshka.evaluation.baselines import BASELINES, fit_baselines, unit


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(0)
    # A few strong directions, hidden by a rotation, and a mean that is not 0.
    scales = np.array([3, 2, 1.5, 1] + [0.1] * 12)
    rotation, _ = np.linalg.qr(rng.normal(size=(16, 16)))
    return unit((rng.normal(size=(300, 16)) * scales + 0.3) @ rotation)


@pytest.mark.parametrize("name", BASELINES)
def test_results_are_unit_vectors_of_the_width(corpus, name):
    baseline = fit_baselines(corpus, [name])[name]
    for kind in ("query", "document"):
        vectors = baseline.transform(corpus[:20], 6, kind)
        assert vectors.shape == (20, 6)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", ["truncation", "random_dims", "variance_order", "svd"])
def test_full_width_keeps_inner_products(corpus, name):
    vectors = fit_baselines(corpus, [name])[name].transform(corpus, 16)
    np.testing.assert_allclose(vectors @ vectors.T, corpus @ corpus.T, atol=1e-5)


def test_svd_is_the_best_uncentred_subspace(corpus):
    vectors = fit_baselines(corpus, ["svd"])["svd"]
    singular = np.linalg.svd(corpus, compute_uv=False)
    kept = (corpus @ vectors.rotation[:, :4]) ** 2
    assert kept.sum() == pytest.approx((singular[:4] ** 2).sum(), rel=1e-5)


def test_variance_order_starts_with_the_coordinate_that_varies_most(corpus):
    first = fit_baselines(corpus, ["variance_order"])["variance_order"].transform(corpus, 1)
    np.testing.assert_array_equal(np.sign(first[:, 0]), np.sign(corpus[:, corpus.var(axis=0).argmax()]))


def test_random_dims_are_nested_and_seeded(corpus):
    a, b = (fit_baselines(corpus, ["random_dims"], seed=seed)["random_dims"] for seed in (0, 1))
    np.testing.assert_allclose(a.transform(corpus, 3), unit(a.transform(corpus, 5)[:, :3]), atol=1e-6)
    assert not np.array_equal(a.order, b.order)


def test_quantisation_touches_documents_only_and_costs_less(corpus):
    fitted = fit_baselines(corpus, ["truncation", "int8", "binary"])
    exact = fitted["truncation"].transform(corpus, 10)
    for name in ("int8", "binary"):
        np.testing.assert_array_equal(fitted[name].transform(corpus, 10, "query"), exact)
    int8 = fitted["int8"].transform(corpus, 10)
    assert 0 < np.abs(int8 - exact).max() < 0.02
    assert len(np.unique(np.abs(fitted["binary"].transform(corpus, 10)))) == 1
    assert [fitted[name].bytes_per_vector(10) for name in ("truncation", "int8", "binary")] == [40, 10, 2]


def test_int8_clips_to_the_range_of_the_corpus(corpus):
    int8 = fit_baselines(corpus, ["int8"])["int8"]
    far = int8.transform(100 * np.ones((1, 16), dtype=np.float32), 16)
    np.testing.assert_allclose(far, unit(corpus.max(axis=0)[None]), atol=1e-5)


def test_bad_input_is_named(corpus):
    truncation = fit_baselines(corpus, ["truncation"])["truncation"]
    with pytest.raises(ValueError, match="dim must be from 1 to 16, but is 17"):
        truncation.transform(corpus, 17)
    with pytest.raises(ValueError, match="kind must be one of query, document, but is 'doc'"):
        truncation.transform(corpus, 4, "doc")
    with pytest.raises(ValueError, match="'pca' does not exist; choose among truncation, "):
        fit_baselines(corpus, ["pca"])
    with pytest.raises(ValueError, match="NaN in row 1"):
        fit_baselines(np.array([[1.0, 0.0], [np.nan, 1.0]]))
