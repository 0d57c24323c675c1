"""One system at every width on a retrieval data set, from cached full-width vectors."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..data.retrieval import RetrievalDataset
from ..data.splits import unseen_queries
from ..data.vectors import check_vectors
from .baselines import Baseline, fit_baselines
from .bootstrap import bootstrap_mean
from .curve import Curve, LevelPoint
from .metrics import ndcg_at_k


# Full-width vectors, a width and "query" or "document" in; vectors of that width out, compared by cosine.
Transform = Callable[[np.ndarray, int, str], np.ndarray]

_QUERY_CHUNK = 512


def score_retrieval(
    transform: Transform,
    query_vectors: np.ndarray,
    corpus_vectors: np.ndarray,
    dataset: RetrievalDataset,
    dims: Sequence[int],
    *,
    system: str,
    split: str = "test",
    k: int = 10,
    costs: Mapping[int, Mapping[str, float]] | None = None,
) -> dict[str, Curve]:
    """nDCG@k of one system at every width, with 95% bootstrap intervals over the queries.

    Where the training split of the data set shares documents with the evaluated split, the queries whose relevant
    documents training has never seen get a curve of their own.

    Args:
        transform (`Callable`): `transform(vectors, dim, kind)` maps full-width vectors to `dim` columns that are
            compared by cosine; `kind` is `"query"` or `"document"`. A fitted baseline's `transform` is one.
        query_vectors (`np.ndarray` of shape `(num_queries, width)`): In the order of `dataset.query_ids`.
        corpus_vectors (`np.ndarray` of shape `(num_documents, width)`): In the order of `dataset.corpus_ids`.
        dataset ([`~data.retrieval.RetrievalDataset`]): Ids and graded relevance.
        dims (`Sequence[int]`): Widths to score.
        system (`str`): Name of the system.
        split (`str`, *optional*, defaults to `"test"`): Which qrels.
        k (`int`, *optional*, defaults to 10): Cut-off.
        costs (`Mapping[int, Mapping[str, float]]`, *optional*): Costs of each width; by default its float32 bytes.

    Returns:
        `dict[str, Curve]`: `{split: curve}` and, where documents are shared, `{f"{split}_unseen": curve}`.

    Raises:
        ValueError: If the split does not exist or the vectors do not fit the data set.
    """
    query_ids, queries, corpus = _select_split(query_vectors, corpus_vectors, dataset, split)
    qrels = dataset.qrels[split]
    subsets = {split: np.arange(len(query_ids))}
    if "train" in dataset.qrels and split != "train":
        unseen = set(unseen_queries(dataset.qrels["train"], qrels))
        rows = np.array([row for row, query_id in enumerate(query_ids) if query_id in unseen], dtype=np.int64)
        if 0 < len(rows) < len(query_ids):
            subsets[f"{split}_unseen"] = rows
    points: dict[str, list[LevelPoint]] = {name: [] for name in subsets}
    for dim in sorted(dims):
        documents = transform(corpus, dim, "document")
        questions = transform(queries, dim, "query")
        values = np.concatenate(
            [
                ndcg_at_k(
                    _cosine(questions[start : start + _QUERY_CHUNK], documents),
                    query_ids[start : start + _QUERY_CHUNK],
                    dataset.corpus_ids,
                    qrels,
                    k,
                )
                for start in range(0, len(query_ids), _QUERY_CHUNK)
            ]
        )
        cost = dict(costs[dim]) if costs is not None else {"bytes_per_vector": 4 * dim}
        for name, rows in subsets.items():
            mean, low, high = bootstrap_mean(values[rows])
            points[name].append(LevelPoint(f"d{dim}", dim, mean, low, high, dict(cost), values[rows]))
    return {name: Curve(found, f"ndcg_at_{k}", name, system) for name, found in points.items()}


def score_baselines(
    query_vectors: np.ndarray,
    corpus_vectors: np.ndarray,
    dataset: RetrievalDataset,
    dims: Sequence[int],
    *,
    names: Sequence[str] | None = None,
    split: str = "test",
    k: int = 10,
    seed: int = 0,
) -> dict[str, dict[str, Curve]]:
    """[`score_retrieval`] of every baseline, fitted on the corpus.

    Args:
        names (`Sequence[str]`, *optional*): Which baselines; all by default.
        seed (`int`, *optional*, defaults to 0): Seed of the baselines with chance.

    The other arguments are those of [`score_retrieval`].

    Returns:
        `dict[str, dict[str, Curve]]`: Split (with the unseen one, where there is one) to system to curve.
    """
    curves: dict[str, dict[str, Curve]] = {}
    for name, baseline in fit_baselines(corpus_vectors, names, seed).items():
        scored = score_retrieval(
            baseline.transform,
            query_vectors,
            corpus_vectors,
            dataset,
            dims,
            system=name,
            split=split,
            k=k,
            costs=baseline_costs(baseline, dims),
        )
        for part, curve in scored.items():
            curves.setdefault(part, {})[name] = curve
    return curves


def baseline_costs(baseline: Baseline, dims: Sequence[int]) -> dict[int, dict[str, float]]:
    """Bytes of one document vector at each width."""
    return {dim: {"bytes_per_vector": baseline.bytes_per_vector(dim)} for dim in dims}


def check_split(dataset: RetrievalDataset, split: str) -> None:
    """Raise `ValueError` if a data set has no such split."""
    if split not in dataset.qrels:
        known = ", ".join(sorted(dataset.qrels)) or "none"
        raise ValueError(f"split {split!r} does not exist in {dataset.name}; its splits are: {known}")


def _select_split(
    query_vectors: np.ndarray, corpus_vectors: np.ndarray, dataset: RetrievalDataset, split: str
) -> tuple[list[str], np.ndarray, np.ndarray]:
    check_split(dataset, split)
    corpus = check_vectors(corpus_vectors, name="corpus vectors")
    queries = check_vectors(query_vectors, width=corpus.shape[1], name="query vectors")
    for what, vectors, ids in (("document", corpus, dataset.corpus_ids), ("query", queries, dataset.query_ids)):
        if len(vectors) != len(ids):
            raise ValueError(
                f"{dataset.name} needs one vector a {what}: it has {len(ids)}, but {len(vectors)} vectors were given"
            )
    # By id, as everywhere: values a query then compare with those that come through MTEB.
    rows = sorted(
        (row for row, query_id in enumerate(dataset.query_ids) if query_id in dataset.qrels[split]),
        key=dataset.query_ids.__getitem__,
    )
    if not rows:
        raise ValueError(f"split {split!r} of {dataset.name} has no queries")
    return [dataset.query_ids[row] for row in rows], queries[rows], corpus


def _cosine(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(documents, axis=1)[None, :]
    return (queries @ documents.T) / np.where(norms > 0, norms, 1)
