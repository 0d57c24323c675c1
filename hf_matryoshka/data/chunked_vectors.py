"""Arrays that lie one after the other, such as the record batches of a mapped file, as one array of vectors."""

from collections.abc import Sequence

import numpy as np


class ChunkedVectors:
    """Vectors in several arrays, read as if they were one; only what is asked for is copied.

    Args:
        arrays (`Sequence[np.ndarray]`): Of shapes `(n_i, dim)`, in memory or mapped from a file, at least one.

    Raises:
        ValueError: If they have no common width.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, arrays: Sequence[np.ndarray]):
        self.arrays = tuple(arrays)
        widths = {array.shape[1] for array in self.arrays}
        if len(widths) != 1:
            raise ValueError(f"arrays must have one width, got {sorted(widths)}")
        self.starts = np.cumsum([0, *(len(array) for array in self.arrays)])

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.starts[-1]), self.arrays[0].shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        """A copy, float32, of one vector, `(dim,)`, or of those of a slice or of an array of rows, `(k, dim)`.

        Raises:
            IndexError: If there is no such row.
        """
        rows = np.arange(*index.indices(len(self))) if isinstance(index, slice) else np.asarray(index)
        if rows.size and not (-len(self) <= rows.min() and rows.max() < len(self)):
            raise IndexError(f"rows must be from {-len(self)} to {len(self) - 1}, got {rows.min()} to {rows.max()}")
        found = np.empty((*rows.shape, self.shape[1]), dtype=self.dtype)
        rows = np.where(rows < 0, rows + len(self), rows)
        owners = np.searchsorted(self.starts, rows, side="right") - 1
        for owner in np.unique(owners):
            asked = owners == owner
            found[asked] = self.arrays[owner][rows[asked] - self.starts[owner]]
        return found
