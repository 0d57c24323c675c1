"""What an adaptor must beat: ways to shrink embeddings that need no training.

Each is fitted once on full-width vectors of a corpus and then maps vectors to any width; the results are compared by
cosine.
"""

from collections.abc import Sequence

import numpy as np

from ..data.vectors import check_vectors


KINDS = ("query", "document")


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to unit length; rows of zeros stay."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32, copy=False)


class Baseline:
    """One way to shrink vectors. `fit` once, then `transform` to any width."""

    name: str

    def fit(self, corpus_vectors: np.ndarray, seed: int = 0) -> "Baseline":
        """
        Args:
            corpus_vectors (`np.ndarray` of shape `(n, dim)`): Full-width vectors of the documents.
            seed (`int`, *optional*, defaults to 0): Seed, where there is chance.

        Returns:
            [`Baseline`]: Itself.

        Raises:
            ValueError: If the vectors are not finite or not two-dimensional.
        """
        corpus_vectors = check_vectors(corpus_vectors, name="corpus vectors")
        self.width = corpus_vectors.shape[1]
        self._fit(corpus_vectors, seed)
        return self

    def transform(self, vectors: np.ndarray, dim: int, kind: str = "document") -> np.ndarray:
        """
        Args:
            vectors (`np.ndarray` of shape `(n, width)`): Full-width vectors.
            dim (`int`): Width to shrink to.
            kind (`str`, *optional*, defaults to `"document"`): `"query"` or `"document"`: a quantised index stores
                documents; queries keep their precision.

        Returns:
            `np.ndarray` of shape `(n, dim)`: float32 vectors of unit length.

        Raises:
            ValueError: If the width or the kind does not exist.
        """
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, but is {kind!r}")
        if not 1 <= dim <= self.width:
            raise ValueError(f"dim must be from 1 to {self.width}, but is {dim}")
        vectors = check_vectors(vectors, width=self.width)
        return unit(self._transform(vectors, dim, kind))

    def bytes_per_vector(self, dim: int) -> int:
        """Size of one document vector in an index."""
        return 4 * dim

    def _fit(self, corpus_vectors: np.ndarray, seed: int) -> None:
        """Learn from the corpus; nothing by default."""

    def _transform(self, vectors: np.ndarray, dim: int, kind: str) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} must define _transform")


class Truncation(Baseline):
    """The first coordinates."""

    name = "truncation"

    def _transform(self, vectors: np.ndarray, dim: int, kind: str) -> np.ndarray:
        return vectors[:, :dim]


class RandomDims(Baseline):
    """Coordinates in a random order, nested over the widths."""

    name = "random_dims"

    def _fit(self, corpus_vectors: np.ndarray, seed: int) -> None:
        self.order = np.random.default_rng(seed).permutation(self.width)

    def _transform(self, vectors: np.ndarray, dim: int, kind: str) -> np.ndarray:
        return vectors[:, self.order[:dim]]


class VarianceOrder(RandomDims):
    """Coordinates by their variance on the corpus, the largest first."""

    name = "variance_order"

    def _fit(self, corpus_vectors: np.ndarray, seed: int) -> None:
        self.order = np.argsort(-corpus_vectors.var(axis=0, dtype=np.float64), kind="stable")


class SVD(Baseline):
    """Leading right singular vectors of the uncentred corpus (a rotation: full-width inner products stay exact)."""

    name = "svd"

    def _fit(self, corpus_vectors: np.ndarray, seed: int) -> None:
        gram = corpus_vectors.astype(np.float64)
        _, vectors = np.linalg.eigh(gram.T @ gram)
        self.rotation = np.ascontiguousarray(vectors[:, ::-1], dtype=np.float32)

    def _transform(self, vectors: np.ndarray, dim: int, kind: str) -> np.ndarray:
        return vectors @ self.rotation[:, :dim]


class Int8(Baseline):
    """One byte a coordinate of the truncated documents: 256 steps between the corpus's smallest and largest value."""

    name = "int8"

    def _fit(self, corpus_vectors: np.ndarray, seed: int) -> None:
        self.start = corpus_vectors.min(axis=0)
        step = (corpus_vectors.max(axis=0) - self.start) / 255
        self.step = np.where(step > 0, step, 1).astype(np.float32)

    def _transform(self, vectors: np.ndarray, dim: int, kind: str) -> np.ndarray:
        if kind == "query":
            return vectors[:, :dim]
        start, step = self.start[:dim], self.step[:dim]
        codes = np.clip(np.rint((vectors[:, :dim] - start) / step), 0, 255)
        return start + codes * step

    def bytes_per_vector(self, dim: int) -> int:
        return dim


class Binary(Baseline):
    """One bit a coordinate of the truncated documents, its sign; queries keep their precision (as in rescoring)."""

    name = "binary"

    def _transform(self, vectors: np.ndarray, dim: int, kind: str) -> np.ndarray:
        if kind == "query":
            return vectors[:, :dim]
        return np.where(vectors[:, :dim] > 0, np.float32(1), np.float32(-1))

    def bytes_per_vector(self, dim: int) -> int:
        return -(-dim // 8)


BASELINES = {system.name: system for system in (Truncation, RandomDims, VarianceOrder, SVD, Int8, Binary)}


def fit_baselines(
    corpus_vectors: np.ndarray, names: Sequence[str] | None = None, seed: int = 0
) -> dict[str, Baseline]:
    """Fit several baselines on one corpus.

    Args:
        corpus_vectors (`np.ndarray` of shape `(n, dim)`): Full-width vectors of the documents.
        names (`Sequence[str]`, *optional*): Which; all of `BASELINES` by default.
        seed (`int`, *optional*, defaults to 0): Seed, where there is chance.

    Returns:
        `dict[str, Baseline]`: The fitted baselines by name.

    Raises:
        ValueError: If a name does not exist or the vectors are no vectors.
    """
    names = list(BASELINES) if names is None else list(names)
    for name in names:
        if name not in BASELINES:
            raise ValueError(f"baseline {name!r} does not exist; choose among {', '.join(BASELINES)}")
    return {name: BASELINES[name]().fit(corpus_vectors, seed) for name in names}
