"""Initialising an adaptor: from the identity, or from the principal directions of a corpus."""

import numpy as np
import torch

from ..modeling import MatryoshkaAdaptorConfig, MatryoshkaAdaptorModel


INITS = ("identity", "svd")


def principal_rotation(vectors: np.ndarray) -> np.ndarray:
    """The rotation to the principal directions of vectors, without centring.

    Cosine retrieval measures angles at the origin, so the directions are those of the second moment, not of the
    covariance; centring first costs several points at 128 dimensions and more.

    Args:
        vectors (`np.ndarray` of shape `(n, dim)`): Embeddings; they are scaled to unit length first.

    Returns:
        `np.ndarray` of shape `(dim, dim)` and type float64: Orthonormal rows, by falling second moment; the largest
        entry of each row is positive.
    """
    unit = vectors.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    _, directions = np.linalg.eigh(unit.T @ unit)
    rotation = directions.T[::-1]
    peaks = rotation[np.arange(len(rotation)), np.abs(rotation).argmax(axis=1)]
    return rotation * np.sign(peaks)[:, None]


def create_adaptor(
    vectors: np.ndarray, *, kind: str = "mlp", init: str = "svd", seed: int = 0, **config
) -> MatryoshkaAdaptorModel:
    """A new adaptor for the embeddings of a corpus.

    Args:
        vectors (`np.ndarray` of shape `(n, dim)`): Full-width embeddings of the corpus.
        kind (`str`, *optional*, defaults to `"mlp"`): See [`MatryoshkaAdaptorConfig`].
        init (`str`, *optional*, defaults to `"svd"`): `"identity"`, or `"svd"`: [`principal_rotation`] of the corpus;
            for `"permutation"` the coordinates in the order of their second moment.
        seed (`int`, *optional*, defaults to 0): Seed of the random weights.
        config: Further fields of [`MatryoshkaAdaptorConfig`].

    Returns:
        [`MatryoshkaAdaptorModel`]: Without training, its prefixes are those of the embeddings (`"identity"`) or of
        the rotated embeddings (`"svd"`).

    Raises:
        ValueError: If `kind` or `init` does not exist.
    """
    if init not in INITS:
        raise ValueError(f"init {init!r} does not exist; choose one of {', '.join(INITS)}")
    projected = init == "svd" and kind in ("mlp", "orthogonal")
    settings = MatryoshkaAdaptorConfig(embedding_dim=vectors.shape[1], kind=kind, projection=projected, **config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MatryoshkaAdaptorModel(settings)
    if init == "identity":
        return model
    with torch.no_grad():
        if kind == "permutation":
            energy = np.square(vectors, dtype=np.float64).mean(axis=0)
            model.adaptor.scores.copy_(torch.from_numpy(energy / energy.max()))
        else:
            rotation = principal_rotation(vectors)[: settings.output_dim]
            model.adaptor.projection.weight.copy_(torch.from_numpy(rotation.copy()))
    return model
