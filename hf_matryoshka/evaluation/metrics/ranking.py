"""Ranking metrics with graded relevance, equal to those of trec_eval (and so of MTEB)."""

from collections.abc import Mapping, Sequence

import numpy as np


def rank_documents(similarities: np.ndarray, corpus_ids: Sequence[str], k: int) -> np.ndarray:
    """The `k` most similar documents of each query; ties go to the larger document id, as in trec_eval.

    Args:
        similarities (`np.ndarray` of shape `(num_queries, num_documents)`): Higher is more similar.
        corpus_ids (`Sequence[str]`): Id of each column.
        k (`int`): Number of documents to keep.

    Returns:
        `np.ndarray` of shape `(num_queries, min(k, num_documents))`: Column indices, the most similar first.

    Raises:
        ValueError: If the shapes do not fit or `k` is not positive.
    """
    if similarities.ndim != 2 or similarities.shape[1] != len(corpus_ids):
        raise ValueError(
            f"similarities must have one column for each of the {len(corpus_ids)} documents, "
            f"but have the shape {similarities.shape}"
        )
    if k < 1:
        raise ValueError(f"k must be at least 1, but is {k}")
    num_documents = len(corpus_ids)
    k = min(k, num_documents)
    by_id = np.array(sorted(range(num_documents), key=corpus_ids.__getitem__, reverse=True), dtype=np.int64)
    ordered = similarities[:, by_id]
    # Everything tied with the k-th value stays a candidate: a plain partition would pick among ties at random.
    thresholds = np.partition(ordered, num_documents - k, axis=1)[:, num_documents - k]
    ranking = np.empty((len(similarities), k), dtype=np.int64)
    for row, (values, threshold) in enumerate(zip(ordered, thresholds, strict=True)):
        candidates = np.flatnonzero(values >= threshold)
        best = candidates[np.argsort(-values[candidates], kind="stable")[:k]]
        ranking[row] = by_id[best]
    return ranking


def _query_grades(query_ids: Sequence[str], qrels: Mapping[str, Mapping[str, int]]) -> list[Mapping[str, int]]:
    missing = [query_id for query_id in query_ids if query_id not in qrels]
    if missing:
        raise ValueError(f"{len(missing)} of {len(query_ids)} queries have no qrels, the first is {missing[0]!r}")
    return [qrels[query_id] for query_id in query_ids]


def ndcg_of_ranking(ranking: Sequence[str], grades: Mapping[str, int], k: int = 10) -> float:
    """Normalised discounted cumulative gain of one ranking, with linear gain (trec_eval's `ndcg_cut`).

    Args:
        ranking (`Sequence[str]`): Document ids, the best first.
        grades (`Mapping[str, int]`): Grade of each judged document; others count 0.
        k (`int`, *optional*, defaults to 10): Cut-off.

    Returns:
        `float`: Between 0 and 1; 0 if no document has a positive grade.
    """
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:k]
    if not ideal:
        return 0.0
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    gains = np.array([max(grades.get(document_id, 0), 0) for document_id in ranking[:k]], dtype=np.float64)
    return float(gains @ discounts[: len(gains)] / (np.array(ideal) @ discounts[: len(ideal)]))


def ndcg_at_k(
    similarities: np.ndarray,
    query_ids: Sequence[str],
    corpus_ids: Sequence[str],
    qrels: Mapping[str, Mapping[str, int]],
    k: int = 10,
) -> np.ndarray:
    """nDCG@k of each query (Järvelin and Kekäläinen, 2002), graded, with linear gain as in pytrec_eval.

    Args:
        similarities (`np.ndarray` of shape `(num_queries, num_documents)`): Higher is more similar.
        query_ids (`Sequence[str]`): Id of each row.
        corpus_ids (`Sequence[str]`): Id of each column.
        qrels (`Mapping[str, Mapping[str, int]]`): Query id to document id to grade.
        k (`int`, *optional*, defaults to 10): Cut-off.

    Returns:
        `np.ndarray` of shape `(num_queries,)`, float64.

    Raises:
        ValueError: If the shapes do not fit or a query has no qrels.
    """
    grades = _query_grades(query_ids, qrels)
    rankings = rank_documents(similarities, corpus_ids, k)
    return np.array(
        [
            ndcg_of_ranking([corpus_ids[i] for i in ranking], grade, k)
            for ranking, grade in zip(rankings, grades, strict=True)
        ]
    )


def recall_at_k(
    similarities: np.ndarray,
    query_ids: Sequence[str],
    corpus_ids: Sequence[str],
    qrels: Mapping[str, Mapping[str, int]],
    k: int = 10,
) -> np.ndarray:
    """Share of each query's relevant documents (grade above 0) among its `k` most similar.

    Arguments, result and errors as in [`ndcg_at_k`]; 0 for a query without relevant documents.
    """
    grades = _query_grades(query_ids, qrels)
    rankings = rank_documents(similarities, corpus_ids, k)
    values = np.zeros(len(query_ids))
    for row, (ranking, grade) in enumerate(zip(rankings, grades, strict=True)):
        relevant = {document_id for document_id, value in grade.items() if value > 0}
        if relevant:
            values[row] = len(relevant.intersection(corpus_ids[i] for i in ranking)) / len(relevant)
    return values
