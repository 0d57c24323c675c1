"""Vectors from anywhere: arrays in memory, `.npy`, `.parquet` and `.arrow` files, checked before any work."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .arrow import read_vector_column, vectors_table, write_arrow
from .chunked_vectors import ChunkedVectors
from .files import write_beside


SUFFIXES = (".npy", ".parquet", ".arrow")
_ROWS_PER_CHECK = 65536


def check_vectors(vectors: Any, width: int | None = None, name: str = "vectors") -> np.ndarray:
    """Checks vectors and gives them as contiguous float32; no copy is made of an array that is so already.

    Args:
        vectors (`np.ndarray` or `torch.Tensor` or nested `list` of shape `(n, dim)`):
            The vectors.
        width (`int`, *optional*):
            The `dim` that they must have.
        name (`str`, *optional*, defaults to `"vectors"`):
            What to call them in an error.

    Returns:
        `np.ndarray` of shape `(n, dim)`: float32, C-contiguous, finite.

    Raises:
        ValueError: if they are not a non-empty 2-D array of numbers, hold NaN or inf, or have another width.
    """
    try:
        array = np.asarray(vectors)
    except ValueError as error:
        raise ValueError(f"{name} must be 2-D numbers of shape (n, dim), got rows of unequal length") from error
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be 2-D numbers of shape (n, dim), got values of type {array.dtype}")
    if array.ndim != 2:
        raise ValueError(f"{name} must be 2-D of shape (n, dim), got shape {array.shape}")
    _check_shape(array.shape, width, name)
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype=np.float32)
    _check_finite(array, name)
    return array


def _check_shape(shape: tuple[int, ...], width: int | None, name: str) -> None:
    if 0 in shape:
        raise ValueError(f"{name} is empty: got shape {shape}; at least one vector is needed")
    if width is not None and shape[1] != width:
        raise ValueError(f"{name} must be {width} wide, got vectors of width {shape[1]}")


def _check_finite(vectors: np.ndarray | ChunkedVectors, name: str) -> None:
    for start in range(0, len(vectors), _ROWS_PER_CHECK):
        with np.errstate(over="ignore"):
            part = vectors[start : start + _ROWS_PER_CHECK]
        finite = np.isfinite(part).all(axis=1)
        if not finite.all():
            row = int(np.argmin(finite))
            value = "NaN" if np.isnan(part[row]).any() else "inf"
            raise ValueError(f"{name} must be finite float32 numbers, got {value} in row {start + row}")


def load_vectors(path: str | Path, width: int | None = None) -> np.ndarray:
    """Reads vectors from a file, such as those that an embedding API has returned.

    Args:
        path (`str` or `Path`):
            A `.npy` array, or a `.parquet` or `.arrow` table with a column of float lists: the one named `embedding`,
            `embeddings` or `vector`, or else the only one. Pickled arrays are refused.
        width (`int`, *optional*):
            The `dim` that they must have.

    Returns:
        `np.ndarray` of shape `(n, dim)`: float32; mapped where [`open_vectors`] gives an array, else in memory.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read as vectors, or [`check_vectors`] refuses them.
    """
    vectors = open_vectors(path, width)
    return vectors[:] if isinstance(vectors, ChunkedVectors) else vectors


def open_vectors(path: str | Path, width: int | None = None) -> np.ndarray | ChunkedVectors:
    """Maps vectors of a file that may be larger than the memory: only what is used of it comes into memory.

    A `.parquet` file cannot be mapped and is read; float32 is what is mapped of a `.npy` file and of an `.arrow` file
    of one record batch; an `.arrow` file of several is mapped whatever its numbers are.

    Args:
        path (`str` or `Path`): As [`load_vectors`] takes it.
        width (`int`, *optional*): The `dim` that they must have.

    Returns:
        `np.ndarray` or [`ChunkedVectors`] of shape `(n, dim)`, float32: the latter if the file has several record
        batches, which do not lie in one piece.

    Raises:
        FileNotFoundError, ValueError: As [`load_vectors`].
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no vectors file at {path}; give a {', '.join(SUFFIXES)} file")
    check_vectors_path(path)
    if path.suffix == ".npy":
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path} is not a plain .npy array of numbers ({error})") from error
        return check_vectors(array, width, name=str(path))
    try:
        arrays = read_vector_column(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a readable {path.suffix} table ({error})") from error
    if len(arrays) == 1:
        return check_vectors(arrays[0], width, name=str(path))
    vectors = ChunkedVectors(arrays)
    _check_shape(vectors.shape, width, str(path))
    _check_finite(vectors, str(path))
    return vectors


def save_vectors(vectors: np.ndarray, path: str | Path) -> None:
    """Writes vectors so that [`load_vectors`] reads them back; the file appears whole or not at all.

    Args:
        vectors (`np.ndarray` of shape `(n, dim)`):
            The vectors.
        path (`str` or `Path`):
            A `.npy`, `.parquet` or `.arrow` name; tables get one column `embedding`.

    Raises:
        ValueError: for another suffix, or if [`check_vectors`] refuses the vectors.
        OSError: if the file cannot be written.
    """
    path = Path(path)
    check_vectors_path(path)
    vectors = check_vectors(vectors)
    with write_beside(path) as temporary:
        if path.suffix == ".npy":
            np.save(temporary, vectors)
        elif path.suffix == ".parquet":
            pq.write_table(vectors_table(vectors), temporary)
        else:
            write_arrow(vectors_table(vectors), temporary)


def check_vectors_path(path: Path) -> None:
    """Raise `ValueError` unless the name ends as a file of vectors does."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"vectors files are {', '.join(SUFFIXES)}; got {path.name!r}")
