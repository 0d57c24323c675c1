import numpy as np
import pytest
import torch

from hf_matryoshka.surgery.adaptor_init import create_adaptor, principal_rotation


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    # Low-rank, off-centre and with most of the energy in the last coordinates.
    scales = np.linspace(0.1, 2.0, 16)
    return (rng.normal(size=(200, 16)) * scales + 0.3 * scales[::-1]).astype(np.float32)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_rotation_is_orthonormal_and_ordered_by_energy(vectors):
    rotation = principal_rotation(vectors)
    assert np.allclose(rotation @ rotation.T, np.eye(16), atol=1e-10)
    energy = np.square(unit(vectors.astype(np.float64)) @ rotation.T).sum(axis=0)
    assert (np.diff(energy) <= 1e-9).all()
    _, singular, directions = np.linalg.svd(unit(vectors.astype(np.float64)), full_matrices=False)
    assert np.allclose(energy, singular**2)
    assert np.allclose(np.abs((rotation * directions).sum(axis=1)), 1, atol=1e-6)
    peaks = rotation[np.arange(16), np.abs(rotation).argmax(axis=1)]
    assert (peaks > 0).all()


@pytest.mark.parametrize("kind", ["mlp", "linear", "orthogonal"])
def test_svd_start_equals_the_rotated_vectors(vectors, kind):
    model = create_adaptor(vectors, kind=kind, init="svd", matryoshka_dims=[4, 16])
    expected = unit(unit(vectors) @ principal_rotation(vectors)[:4].T)
    with torch.no_grad():
        actual = model(torch.from_numpy(vectors), level="d4").embeddings.numpy()
    assert np.allclose(actual, expected, atol=1e-5)


def test_permutation_starts_in_the_order_of_energy(vectors):
    model = create_adaptor(vectors, kind="permutation", init="svd", matryoshka_dims=[4, 16])
    energy = np.square(vectors).mean(axis=0)
    assert model.adaptor.order.tolist() == np.argsort(-energy, kind="stable").tolist()


@pytest.mark.parametrize("kind", ["mlp", "linear", "orthogonal", "permutation"])
def test_identity_start_changes_nothing(vectors, kind):
    model = create_adaptor(vectors, kind=kind, init="identity", matryoshka_dims=[4, 16])
    with torch.no_grad():
        actual = model(torch.from_numpy(vectors)).embeddings.numpy()
    assert np.allclose(actual, unit(vectors), atol=1e-6)


def test_the_seed_decides_the_random_weights_and_leaves_the_global_state(vectors):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first = create_adaptor(vectors, seed=3, matryoshka_dims=[4, 16]).adaptor.up.weight
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, create_adaptor(vectors, seed=3, matryoshka_dims=[4, 16]).adaptor.up.weight)
    assert not torch.equal(first, create_adaptor(vectors, seed=4, matryoshka_dims=[4, 16]).adaptor.up.weight)


def test_an_unknown_init_is_refused(vectors):
    with pytest.raises(ValueError, match="init 'pca' does not exist; choose one of identity, svd"):
        create_adaptor(vectors, init="pca")
