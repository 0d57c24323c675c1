import numpy as np
import pytest
import torch

from hf_matryoshka import init_funnel
from hf_matryoshka.evaluation.reconstruction import (
    decoded_levels,
    funnel_curve,
    linear_codes,
    linear_curve,
    neighbour_overlap,
    overlap_curve,
    reconstruction_cosines,
)

from ..modeling.funnel_models import SIZES


@pytest.fixture(scope="module")
def embeddings():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 20)) * np.linspace(2, 0.2, 20) + 1
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_linear_codes_are_what_their_names_say(embeddings):
    codes = linear_codes(embeddings)
    at = {
        name: reconstruction_cosines(c.decode(c.encode(embeddings, 8)), embeddings).mean() for name, c in codes.items()
    }
    mean = embeddings.mean(0)
    assert at["mean"] == pytest.approx((embeddings @ (mean / np.linalg.norm(mean))).mean(), abs=1e-5)
    # A projection keeps as much of the length as of the direction.
    assert at["truncation"] == pytest.approx(np.linalg.norm(embeddings[:, :8], axis=1).mean(), abs=1e-5)
    assert min(at["pca"], at["pca_uncentred"]) > at["random_orthogonal"] > 0
    assert at["pca_int8"] == pytest.approx(at["pca"], abs=1e-3) and at["pca_int8"] != at["pca"]
    code = codes["pca_int8"].encode(embeddings, 8)
    assert all(len(np.unique(code[:, column])) <= 256 for column in range(8))
    full = codes["pca"].decode(codes["pca"].encode(embeddings, 20))
    np.testing.assert_allclose(full, embeddings, atol=1e-5)


def test_neighbours_in_common(embeddings):
    assert (neighbour_overlap(embeddings, embeddings, block=64) == 1).all()
    shuffled = embeddings[np.random.default_rng(1).permutation(400)]
    assert neighbour_overlap(shuffled, embeddings).mean() < 0.1
    # By hand, a vector and its nearest two.
    angles = np.array([0, 0.1, 0.3, 1.0, 2.0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    moved = vectors.copy()
    moved[2] = vectors[4]
    assert neighbour_overlap(moved, vectors, count=2, block=2)[0] == 0.5
    with pytest.raises(ValueError, match="10 neighbours need more than 10 vectors, but there are 10"):
        neighbour_overlap(embeddings[:10], embeddings[:10])


def test_curves_of_a_funnel_and_of_its_rivals(embeddings):
    model = init_funnel(embeddings, matryoshka_dims=[4, 8], **SIZES)
    curve = funnel_curve(model, embeddings, "heldout")
    with torch.no_grad():
        x = torch.from_numpy(embeddings)
        expected = (model.decode_levels(model.encode(x)) * x).sum(-1).mean(1)
    assert curve.qualities == pytest.approx(expected.tolist(), abs=1e-5)
    assert curve["d4"].low < curve["d4"].quality < curve["d4"].high and curve["d4"].cost["bytes_per_vector"] == 16
    pca = linear_curve(model, linear_codes(embeddings)["pca"], "pca", embeddings, "heldout")
    assert pca.qualities == pytest.approx(curve.qualities, abs=1e-5) and pca["d8"].cost["macs"] == 2 * 8 * 20
    latents, levels = zip(*decoded_levels(model, embeddings, batch_size=64), strict=True)
    assert np.concatenate(latents).shape == (400, 8) and np.concatenate(levels, axis=1).shape == (2, 400, 20)


def test_curve_of_the_neighbours_in_common(embeddings):
    model = init_funnel(embeddings, matryoshka_dims=[4, 20], **SIZES)
    curve = overlap_curve(model, embeddings, "heldout", {"pca": linear_codes(embeddings)["pca"]})
    assert curve.metric == "neighbour_overlap_at_10" and curve.system == "ours"
    # Latents start as principal components.
    assert curve.qualities == pytest.approx(curve.baselines["pca"].qualities, abs=1e-3)
    assert curve.qualities[0] < 0.5 < curve.qualities[1]
    latents = model.encode(torch.from_numpy(embeddings), level="d4").detach().numpy()
    assert curve.qualities[0] == pytest.approx(neighbour_overlap(latents, embeddings).mean())
