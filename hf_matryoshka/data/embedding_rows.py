"""Rows of an array of embeddings that may be larger than the memory, as a data set."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Dataset

from .chunked_vectors import ChunkedVectors


# Rows that are read at once: the embeddings may be a file that is larger than the memory.
CHUNK = 16384


class EmbeddingRows(Dataset):
    """Some rows of an array, in some order; a batch is read as one piece.

    It is also an array itself as far as slices go, so that whatever reads embeddings in chunks takes it.

    Args:
        vectors (`np.ndarray` or [`ChunkedVectors`] of shape `(n, dim)`): The array, in memory or mapped from a file.
        rows (`np.ndarray` of shape `(m,)`): Which of its rows.
    """

    ndim = 2

    def __init__(self, vectors: np.ndarray | ChunkedVectors, rows: np.ndarray):
        self.vectors, self.rows = vectors, rows

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), self.vectors.shape[1]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | slice) -> np.ndarray:
        """One vector, `(dim,)`, or those of a slice, `(k, dim)`."""
        return np.asarray(self.vectors[self.rows[index]], dtype=np.float32)

    def __getitems__(self, indices: list[int]) -> np.ndarray:
        """The vectors of a batch, `(batch, dim)`."""
        # In the order of the file, which a disk reads faster.
        order = np.argsort(self.rows[indices])
        found = np.empty((len(indices), self.shape[1]), dtype=np.float32)
        found[order] = self.vectors[self.rows[indices][order]]
        return found


def collate_rows(batch: np.ndarray) -> dict[str, torch.Tensor]:
    """A batch of [`EmbeddingRows`] as a trainer takes it: `embeddings` of shape `(batch, dim)`."""
    return {"embeddings": torch.from_numpy(np.asarray(batch))}


def split_rows(vectors: np.ndarray | ChunkedVectors, shares: tuple[float, ...], seed: int) -> list[EmbeddingRows]:
    """The rows of an array in a random order, split.

    Args:
        vectors (`np.ndarray` or [`ChunkedVectors`] of shape `(n, dim)`): The array.
        shares (`tuple[float, ...]`): Parts of the rows, one for each piece after the first.
        seed (`int`): Of the order.

    Returns:
        `list[EmbeddingRows]`: What is left, then the pieces.
    """
    order = np.random.default_rng(seed).permutation(len(vectors))
    counts = [round(share * len(order)) for share in shares]
    ends = np.cumsum([len(order) - sum(counts), *counts])
    return [EmbeddingRows(vectors, part) for part in np.split(order, ends[:-1])]


def chunks(embeddings: np.ndarray, size: int = CHUNK) -> Iterator[torch.Tensor]:
    """Embeddings, `(n, dim)`, in chunks of float32.

    Raises:
        ValueError: If one holds NaN or infinity.
    """
    for start in range(0, len(embeddings), size):
        chunk = torch.from_numpy(np.array(embeddings[start : start + size], dtype=np.float32))
        if not torch.isfinite(chunk).all():
            row = start + int((~torch.isfinite(chunk).all(dim=-1)).nonzero()[0])
            raise ValueError(f"embedding {row} holds NaN or infinity; take it out first")
        yield chunk
