"""Searching each query at as few dimensions as it needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from .baselines import unit


CANDIDATES = 20


@dataclass(frozen=True)
class AdaptiveSearch:
    """A search that looks at the leading dimensions first, and at more only for queries that are not clear yet.

    A query is done at a dimension when its best document is ahead of the second by at least the margin of that
    dimension. Calibrated, of all queries that are so clear at a dimension (those that a smaller one took already are
    counted, too) at most a share `max_error` has another best document at the full dimension.

    Args:
        dims (`tuple[int, ...]`): The dimensions, smallest first.
        margins (`tuple[float, ...]`): For each but the last the difference of two cosines; infinity where the
            dimension never suffices.
        max_error (`float`): Share of early decisions that may differ from the full search.
        confidence (`float`): How sure that is of other queries like those of the calibration.
    """

    dims: tuple[int, ...]
    margins: tuple[float, ...]
    max_error: float
    confidence: float

    @classmethod
    def calibrate(
        cls,
        queries: np.ndarray,
        documents: np.ndarray,
        dims: Sequence[int],
        max_error: float = 0.05,
        confidence: float = 0.95,
    ) -> "AdaptiveSearch":
        """Margins from queries that are like those to come.

        Of the queries whose margin at a dimension is at least `t`, the share that has another best document than at
        the full dimension is bounded from above (Clopper and Pearson, 1934). Candidates for `t` let more and more
        queries through, from the fewest that could prove the promise to all, and are tested in this order until one
        fails (fixed-sequence testing, as in Learn then Test, arXiv 2110.01052); the confidence is corrected for the
        number of dimensions (Bonferroni). With too few queries no dimension but the last is ever used.

        Args:
            queries (`np.ndarray` of shape `(num_queries, width)`), documents (`np.ndarray` of shape
                `(num_documents, width)`): Embeddings at the largest dimension.
            dims (`Sequence[int]`): The dimensions, smallest first, the last at most `width`.
            max_error (`float`, *optional*, defaults to 0.05), confidence (`float`, *optional*, defaults to 0.95): See
                the class.

        Raises:
            ValueError: If the dimensions do not increase, there are fewer than two documents, or a share is not
                between 0 and 1.
        """
        if not 0 < max_error < 1 or not 0 < confidence < 1:
            raise ValueError(f"max_error and confidence must be between 0 and 1, but are {max_error} and {confidence}")
        if len(dims) < 2 or any(a >= b for a, b in zip(dims, dims[1:], strict=False)) or dims[-1] > queries.shape[1]:
            raise ValueError(f"dims must be at least two, increasing, up to {queries.shape[1]}, but are {list(dims)}")
        if len(documents) < 2:
            raise ValueError(f"a margin needs at least two documents, but there are {len(documents)}")
        best = _best_two(queries, documents, dims[-1])[0][:, 0]
        level = 1 - (1 - confidence) / (len(dims) - 1)
        # Of fewer queries without any error the bound is still above `max_error`.
        fewest = int(np.ceil(np.log(1 - level) / np.log(1 - max_error)))
        # Twice as many may have an error or two: one would end the tests otherwise.
        first = min(2 * fewest, len(queries))
        margins = []
        for dim in dims[:-1]:
            places, gaps = _best_two(queries, documents, dim)
            wrong, chosen = places[:, 0] != best, np.inf
            ordered = np.sort(gaps)[::-1]
            for number in np.linspace(first, len(gaps), CANDIDATES).astype(int) if fewest <= len(gaps) else ():
                margin = ordered[number - 1]
                done = gaps >= margin
                if _upper_bound(int(wrong[done].sum()), int(done.sum()), level) > max_error:
                    break
                chosen = float(margin)
            margins.append(chosen)
        return cls(tuple(dims), tuple(margins), max_error, confidence)

    def search(self, queries: np.ndarray, documents: np.ndarray, top_k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """The nearest documents of each query at the dimension where it is done.

        Args:
            queries (`np.ndarray` of shape `(num_queries, width)`), documents (`np.ndarray` of shape
                `(num_documents, width)`): Embeddings at the largest dimension or wider.
            top_k (`int`, *optional*, defaults to 10): How many documents.

        Returns:
            `tuple[np.ndarray, np.ndarray]`: Places of the documents, `(num_queries, top_k)`, the nearest first, and
            the dimension of each query.
        """
        top_k = min(top_k, len(documents))
        found = np.zeros((len(queries), top_k), dtype=np.int64)
        used = np.zeros(len(queries), dtype=np.int64)
        left = np.arange(len(queries))
        for dim, margin in zip(self.dims, (*self.margins, -np.inf), strict=True):
            if not len(left) or margin == np.inf:
                continue
            scores = _cosines(queries[left], documents, dim)
            order = np.argsort(-scores, axis=1, kind="stable")[:, : max(2, top_k)]
            ranked = np.take_along_axis(scores, order, axis=1)
            done = ranked[:, 0] - ranked[:, 1] >= margin
            found[left[done]], used[left[done]] = order[done, :top_k], dim
            left = left[~done]
        return found, used


def _cosines(queries: np.ndarray, documents: np.ndarray, dim: int) -> np.ndarray:
    return unit(queries[:, :dim]) @ unit(documents[:, :dim]).T


def _best_two(queries: np.ndarray, documents: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the best two documents of each query, and how far the first is ahead."""
    scores = _cosines(queries, documents, dim)
    places = np.argsort(-scores, axis=1, kind="stable")[:, :2]
    ranked = np.take_along_axis(scores, places, axis=1)
    return places, ranked[:, 0] - ranked[:, 1]


def _upper_bound(errors: int, count: int, confidence: float) -> float:
    return 1.0 if errors >= count else float(beta.ppf(confidence, errors + 1, count - errors))
