"""Splits by document: a model that has seen a document is not judged on it."""

import logging
import random

from .retrieval import Qrels


logger = logging.getLogger(__name__)


def document_disjoint_split(qrels: Qrels, validation_fraction: float, seed: int) -> tuple[Qrels, Qrels]:
    """Splits judgements so that no document is relevant in both parts.

    Whole connected components of the graph "query - relevant document" are held out, in an order drawn from `seed`.
    Where one component is too large for that (densely judged sets such as NFCorpus), it is cut: some of its queries
    and some of its documents are held out, and the judgements that cross the cut belong to neither part (said so in
    the log).

    Args:
        qrels (`dict[str, dict[str, int]]`):
            Query id -> document id -> grade. A grade above 0 is relevant.
        validation_fraction (`float`):
            Share of the queries to hold out, between 0 and 1.
        seed (`int`):
            Seed of the draw.

    Returns:
        `tuple[dict, dict]`: train and validation judgements. Queries with no relevant document stay in train.

    Raises:
        ValueError: if the fraction is not between 0 and 1, or if there is nothing to divide.
    """
    if not 0 < validation_fraction < 1:
        raise ValueError(f"validation_fraction must lie between 0 and 1, got {validation_fraction}")
    components = _components(qrels)
    num_queries = sum(map(len, components))
    wanted = max(1, round(validation_fraction * num_queries))
    rng = random.Random(seed)
    rng.shuffle(components)
    held_out: set[str] = set()
    for component in components:
        if len(held_out) + len(component) <= wanted and len(held_out) + len(component) < num_queries:
            held_out.update(component)
    train = {query: grades for query, grades in qrels.items() if query not in held_out}
    validation = {query: grades for query, grades in qrels.items() if query in held_out}

    if len(held_out) < wanted / 2 and components:
        largest = max(components, key=len)
        cut_train, cut_validation = _cut({q: train[q] for q in largest}, wanted - len(held_out), rng)
        validation |= cut_validation
        train = {query: grades for query, grades in train.items() if query not in set(largest)} | cut_train
    if not validation or not any(_relevant(grades) for grades in train.values()):
        raise ValueError(
            f"cannot hold out validation queries: the {num_queries} queries with a relevant document all share the "
            "same documents; give at least two queries with different relevant documents"
        )
    return train, validation


def unseen_queries(train_qrels: Qrels, test_qrels: Qrels) -> list[str]:
    """Test queries none of whose relevant documents is relevant to a train query.

    Args:
        train_qrels (`dict[str, dict[str, int]]`):
            Judgements that training has seen.
        test_qrels (`dict[str, dict[str, int]]`):
            Judgements of the test split.

    Returns:
        `list[str]`: query ids, in the order of `test_qrels`.
    """
    seen = {document for grades in train_qrels.values() for document in _relevant(grades)}
    return [query for query, grades in test_qrels.items() if seen.isdisjoint(_relevant(grades))]


def _relevant(grades: dict[str, int]) -> list[str]:
    return [document for document, grade in grades.items() if grade > 0]


def _components(qrels: Qrels) -> list[list[str]]:
    """Queries grouped by shared relevant documents, independent of the order of `qrels`."""
    queries_of: dict[str, list[str]] = {}
    for query in qrels:
        for document in _relevant(qrels[query]):
            queries_of.setdefault(document, []).append(query)
    components, seen = [], set()
    for start in sorted(qrels):
        if start in seen or not _relevant(qrels[start]):
            continue
        seen.add(start)
        component, stack = [], [start]
        while stack:
            query = stack.pop()
            component.append(query)
            for document in _relevant(qrels[query]):
                # Taken out when first met: each document is expanded once.
                neighbours = [other for other in queries_of.pop(document, []) if other not in seen]
                seen.update(neighbours)
                stack.extend(neighbours)
        components.append(sorted(component))
    return components


def _cut(qrels: Qrels, num_validation: int, rng: random.Random) -> tuple[Qrels, Qrels]:
    """Divides one component by queries and by documents; judgements across the cut are dropped."""
    documents = sorted({document for grades in qrels.values() for document in _relevant(grades)})
    num_validation = min(num_validation, len(qrels) - 1)
    share = num_validation / len(qrels)
    held_documents = set(rng.sample(documents, min(len(documents) - 1, max(1, round(share * len(documents))))))
    train: Qrels = {}
    validation: Qrels = {}
    queries = sorted(qrels)
    rng.shuffle(queries)
    for query in queries:
        held = {d: grade for d, grade in qrels[query].items() if d in held_documents}
        kept = {d: grade for d, grade in qrels[query].items() if d not in held_documents}
        if len(validation) < num_validation and _relevant(held):
            validation[query] = held
        elif _relevant(kept):
            train[query] = kept
    total = sum(len(_relevant(grades)) for grades in qrels.values())
    left = total - sum(len(_relevant(grades)) for part in (train, validation) for grades in part.values())
    logger.warning(
        "%d of the queries share documents with each other, so the validation split holds out documents as well: "
        "%d of their %d relevant judgements are in neither part",
        len(qrels),
        left,
        total,
    )
    return train, validation
