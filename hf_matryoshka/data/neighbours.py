"""Exact nearest neighbours by cosine, in chunks that fit in memory."""

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from .vectors import check_vectors


# Seconds after which a bar appears: most searches take less.
DELAY = 5


def nearest_neighbours(
    queries: np.ndarray,
    corpus: np.ndarray,
    k: int,
    *,
    exclude_self: bool = False,
    chunk_size: int = 1024,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the `k` corpus vectors with the largest cosine to each query, the nearest first.

    Args:
        queries (`np.ndarray` of shape `(n, dim)`):
            The queries.
        corpus (`np.ndarray` of shape `(m, dim)`):
            The vectors to search.
        k (`int`):
            Neighbours a query, at most `m` (`m - 1` with `exclude_self`).
        exclude_self (`bool`, *optional*, defaults to `False`):
            `queries` is `corpus`: a vector is not its own neighbour.
        chunk_size (`int`, *optional*, defaults to 1024):
            Queries a matrix product; the corpus is taken in chunks of 16 times that.
        device (`str` or `torch.device`, *optional*):
            Where to compute; the GPU when there is one, by default.
        progress (`bool`, *optional*, defaults to `False`):
            Whether to show a bar, once it has taken a few seconds.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: corpus indices (int64) and cosines (float32), both of shape `(n, k)`.

    Raises:
        ValueError: if vectors are bad, widths differ, or `k` is out of range.
    """
    corpus = check_vectors(corpus, name="corpus")
    queries = check_vectors(queries, width=corpus.shape[1], name="queries")
    if exclude_self and queries.shape != corpus.shape:
        raise ValueError(
            f"exclude_self needs queries and corpus to be the same vectors, got {len(queries)} and {len(corpus)}"
        )
    available = len(corpus) - exclude_self
    if not 1 <= k <= available:
        raise ValueError(f"k must lie between 1 and {available}, the number of neighbours there are, got {k}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    indices = np.empty((len(queries), k), dtype=np.int64)
    similarities = np.empty((len(queries), k), dtype=np.float32)
    starts = range(0, len(queries), chunk_size)
    for start in tqdm(starts, desc="Neighbours", unit="chunk", delay=DELAY, disable=not progress):
        chunk = F.normalize(torch.from_numpy(queries[start : start + chunk_size].copy()).to(device), dim=-1)
        best_similarities, best_indices = _search(chunk, corpus, k, 16 * chunk_size, start if exclude_self else None)
        indices[start : start + chunk_size] = best_indices.cpu().numpy()
        similarities[start : start + chunk_size] = best_similarities.cpu().numpy()
    return indices, similarities


def _search(
    queries: torch.Tensor, corpus: np.ndarray, k: int, corpus_chunk: int, first_row: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Top k of one chunk of queries, kept over chunks of the corpus; `first_row` is the row of the first query."""
    best_similarities = queries.new_empty((len(queries), 0))
    best_indices = torch.empty((len(queries), 0), dtype=torch.int64, device=queries.device)
    for start in range(0, len(corpus), corpus_chunk):
        part = F.normalize(torch.from_numpy(corpus[start : start + corpus_chunk].copy()).to(queries.device), dim=-1)
        similarities = queries @ part.T
        if first_row is not None:
            own = torch.arange(first_row - start, first_row - start + len(queries), device=queries.device)
            inside = (own >= 0) & (own < len(part))
            similarities[inside.nonzero().squeeze(1), own[inside]] = -torch.inf
        numbers = torch.arange(start, start + len(part), device=queries.device).expand(len(queries), -1)
        similarities = torch.cat([best_similarities, similarities], dim=1)
        numbers = torch.cat([best_indices, numbers], dim=1)
        best_similarities, positions = similarities.topk(min(k, similarities.shape[1]), dim=1)
        best_indices = numbers.gather(1, positions)
    return best_similarities, best_indices
