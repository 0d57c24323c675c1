"""Nearest rows of a corpus that may lie on disk: exact, in flat memory, always the same among equals."""

from collections.abc import Sequence

import numpy as np


# Together 64 MB of cosines at a time; the vectors of a block are read from disk once for that many queries.
QUERY_CHUNK, ROW_BLOCK = 1024, 16384
# Cosines in float32 may differ by this much from exact ones, by the order of their sums.
_SLACK = 1e-5
# Pairs whose cosine is computed exactly at a time.
_PAIRS = 8192


def nearest_rows(
    queries: np.ndarray, corpus: np.ndarray, top_k: int, exclude: Sequence[int] | np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the rows of a corpus with the largest cosine to each query.

    Unlike [`~data.neighbours.nearest_neighbours`], which is for training data and may compute on a GPU, it leaves out
    given rows, and among rows with the same cosine the first wins: cosines in float32, whose last bits depend on where
    in a matrix product a row stands, only choose the candidates; float64 decides.

    Args:
        queries (`np.ndarray` of shape `(n, dim)`):
            The queries, float32. The cosine of a zero vector is 0.
        corpus (`np.ndarray` of shape `(m, dim)`):
            The vectors to search, float32; may be memory-mapped.
        top_k (`int`):
            Rows a query.
        exclude (`Sequence[int]` or `np.ndarray` of shape `(n, e)`, *optional*):
            Rows that no query may get, or, in two dimensions, those that each query may not get.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: rows (int64) and cosines (float64), both of shape `(n, top_k)`, the nearest
        first.

    Raises:
        ValueError: if `exclude` does not fit, or fewer rows than `top_k` are left.
    """
    excluded = _excluded_rows(exclude, len(queries), len(corpus))
    left = len(corpus) - max((len(np.unique(rows)) for rows in excluded), default=0)
    if not 1 <= top_k <= left:
        raise ValueError(f"top_k must lie between 1 and {left}, the number of texts to choose from, got {top_k}")
    rows = np.empty((len(queries), top_k), dtype=np.int64)
    cosines = np.empty((len(queries), top_k))
    for start in range(0, len(queries), QUERY_CHUNK):
        chunk = slice(start, start + QUERY_CHUNK)
        own = excluded if len(excluded) == 1 else excluded[chunk]
        rows[chunk], cosines[chunk] = _search(queries[chunk], corpus, top_k, own)
    return rows, cosines


def _excluded_rows(exclude: Sequence[int] | np.ndarray | None, num_queries: int, num_rows: int) -> np.ndarray:
    """Shape `(1, e)`, the same for all queries, or `(num_queries, e)`."""
    rows = np.asarray([] if exclude is None else exclude)
    rows = rows.astype(np.int64) if rows.size == 0 else rows
    if rows.dtype.kind not in "iu" or rows.ndim not in (1, 2) or (rows.ndim == 2 and len(rows) != num_queries):
        raise ValueError(
            f"exclude must be row numbers, of shape (e,) or, for {num_queries} queries, ({num_queries}, e), got "
            f"{rows.dtype} of shape {rows.shape}"
        )
    if rows.size and not (0 <= rows.min() and rows.max() < num_rows):
        raise ValueError(f"exclude must hold rows from 0 to {num_rows - 1}, got {rows.min()} to {rows.max()}")
    return np.atleast_2d(rows)


def _search(
    queries: np.ndarray, corpus: np.ndarray, top_k: int, excluded: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Top k of one chunk of queries, kept over blocks of the corpus."""
    unit = _unit(queries)
    rows, cosines = np.empty((len(queries), 0), dtype=np.int64), np.empty((len(queries), 0))
    for start in range(0, len(corpus), ROW_BLOCK):
        block = corpus[start : start + ROW_BLOCK]
        rough = unit @ _unit(block).T
        inside = (excluded >= start) & (excluded < start + len(block))
        which, place = inside.nonzero()
        # One row of `excluded` is for all queries.
        rough[which if len(excluded) > 1 else slice(None), excluded[which, place] - start] = -np.inf
        found_rows, found_cosines = _best_of_block(queries, block, rough, min(top_k, len(block)))
        rows = np.concatenate([rows, found_rows + start], axis=1)
        cosines = np.concatenate([cosines, found_cosines], axis=1)
        order = np.lexsort((rows, -cosines), axis=1)[:, :top_k]
        rows, cosines = np.take_along_axis(rows, order, axis=1), np.take_along_axis(cosines, order, axis=1)
    return rows, cosines


def _best_of_block(
    queries: np.ndarray, block: np.ndarray, rough: np.ndarray, top_k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and exact cosines of the best of a block, from rough ones; minus infinity where too few are allowed."""
    least = np.partition(rough, -top_k, axis=1)[:, -top_k, None]
    which, rows = (rough >= np.maximum(least - _SLACK, np.finfo(np.float32).min)).nonzero()
    exact = np.concatenate(
        [
            _exact_cosines(queries[which[start : start + _PAIRS]], block[rows[start : start + _PAIRS]])
            for start in range(0, len(rows), _PAIRS)
        ]
        or [np.empty(0)]
    )
    order = np.lexsort((rows, -exact, which))
    which, rows, exact = which[order], rows[order], exact[order]
    rank = np.arange(len(which)) - np.searchsorted(which, which)
    kept = rank < top_k
    best_rows = np.zeros((len(queries), top_k), dtype=np.int64)
    best = np.full((len(queries), top_k), -np.inf)
    best_rows[which[kept], rank[kept]] = rows[kept]
    best[which[kept], rank[kept]] = exact[kept]
    return best_rows, best


def _exact_cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    first, second = first.astype(np.float64), second.astype(np.float64)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(axis=1) / np.where(norms > 0, norms, 1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)
