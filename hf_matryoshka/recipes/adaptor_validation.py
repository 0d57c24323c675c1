"""Holding documents out of adaptor training, and what is measured on them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from ..data.adaptor_batches import AnchorSet, labelled_anchors
from ..data.splits import document_disjoint_split
from ..evaluation.levels import adaptor_transform
from ..evaluation.metrics import ndcg_at_k, prefix_overlap
from .adaptor_vectors import AdaptorVectors, Queries


# More would only cost time: each is compared with the whole corpus.
MAX_VALIDATION_DOCUMENTS, MAX_VALIDATION_QUERIES = 5000, 500
LevelMetrics = Callable[[nn.Module], dict[str, float]]


@dataclass(frozen=True)
class HeldOut:
    """A training part and what was held out of it: no document is relevant, or an anchor, in both.

    Args:
        train ([`AdaptorVectors`]): What training sees; its corpus lacks the held-out documents.
        corpus (`np.ndarray`): The whole corpus, in which the held-out queries search.
        documents (`np.ndarray`): Positions of the held-out documents.
        pseudo_queries, queries ([`Queries`], *optional*): Held-out pseudo-queries and labelled queries.
    """

    train: AdaptorVectors
    corpus: np.ndarray
    documents: np.ndarray
    pseudo_queries: Queries | None
    queries: Queries | None

    def anchor_sets(self, supervised: bool, label_weight: float) -> list[AnchorSet]:
        """The held-out documents and labelled (else pseudo-) queries, as anchors over the whole corpus."""
        queries = self.queries if supervised else self.pseudo_queries
        sets = [AnchorSet(self.corpus[self.documents], itself=self.documents)] if len(self.documents) else []
        return sets + ([] if queries is None else [labelled_anchors(queries.vectors, queries.relevance, label_weight)])

    def level_metrics(self, supervised: bool) -> LevelMetrics:
        """`ndcg_at_10` of the labelled (else the pseudo-) queries at every level and their mean; without any queries
        `overlap_at_10`, the share of the full-width neighbours of held-out documents that the prefix keeps."""
        queries = self.queries if supervised else self.pseudo_queries
        if queries is None:
            return _overlap_metrics(self.corpus[self.documents])
        return _retrieval_metrics(queries, self.corpus)


def hold_out(vectors: AdaptorVectors, fraction: float, seed: int) -> HeldOut:
    """Divides vectors so that training and validation share no document.

    Held out are `fraction` of the labelled queries (whole groups that share documents) with every document relevant
    to them, and random further documents up to `fraction` of the corpus and at most `MAX_VALIDATION_DOCUMENTS`, with
    their pseudo-queries.
    """
    rng = np.random.default_rng(seed)
    kept_queries = held_queries = None
    protected: set[int] = set()
    held: set[int] = set()
    if vectors.queries is not None:
        train, validation = _split_queries(vectors.queries, fraction, seed)
        kept_queries, held_queries = vectors.queries.take(train), vectors.queries.take(validation)
        protected = {document for grades in kept_queries.relevance for document in grades}
        held = {document for grades in held_queries.relevance for document in grades} - protected
    free = np.array(sorted(set(range(len(vectors.corpus))) - protected - held), dtype=np.int64)
    wanted = max(0, min(round(fraction * len(vectors.corpus)), MAX_VALIDATION_DOCUMENTS) - len(held))
    documents = np.array(sorted({*held, *rng.permutation(free)[:wanted].tolist()}), dtype=np.int64)

    kept = np.setdiff1d(np.arange(len(vectors.corpus)), documents)
    position = {int(document): row for row, document in enumerate(kept)}
    pseudo = [found for found in (vectors.titles, vectors.sentences) if found is not None]
    train = replace(
        vectors,
        corpus=vectors.corpus[kept],
        titles=_restrict(vectors.titles, position),
        sentences=_restrict(vectors.sentences, position),
        queries=_restrict(kept_queries, position),
    )
    return HeldOut(train, vectors.corpus, documents, _held_pseudo(pseudo, set(documents.tolist()), rng), held_queries)


def _split_queries(queries: Queries, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    qrels = {
        str(row): {str(document): grade for document, grade in grades.items()}
        for row, grades in enumerate(queries.relevance)
    }
    train, validation = document_disjoint_split(qrels, fraction, seed)
    return sorted(map(int, train)), sorted(map(int, validation))


def _restrict(queries: Queries | None, position: dict[int, int]) -> Queries | None:
    """Queries whose relevant documents were all kept, with their new positions."""
    if queries is None:
        return None
    rows = [row for row, grades in enumerate(queries.relevance) if all(document in position for document in grades)]
    relevance = [{position[document]: grade for document, grade in queries.relevance[row].items()} for row in rows]
    return Queries(queries.vectors[rows], relevance) if rows else None


def _held_pseudo(pseudo: Sequence[Queries], documents: set[int], rng: np.random.Generator) -> Queries | None:
    vectors, relevance = [], []
    for found in pseudo:
        rows = [row for row, grades in enumerate(found.relevance) if documents.issuperset(grades)]
        vectors.append(found.vectors[rows])
        relevance += [found.relevance[row] for row in rows]
    if not relevance:
        return None
    chosen = rng.permutation(len(relevance))[:MAX_VALIDATION_QUERIES]
    return Queries(np.concatenate(vectors), relevance).take(chosen)


def _retrieval_metrics(queries: Queries, corpus: np.ndarray) -> LevelMetrics:
    corpus_ids = [str(document) for document in range(len(corpus))]
    query_ids = [str(row) for row in range(len(queries))]
    qrels = {
        str(row): {str(document): grade for document, grade in grades.items()}
        for row, grades in enumerate(queries.relevance)
    }

    def measure(model: nn.Module) -> dict[str, float]:
        transform = adaptor_transform(model)
        return _with_mean(
            "ndcg_at_10",
            {
                level: float(
                    ndcg_at_k(
                        transform(queries.vectors, level) @ transform(corpus, level).T, query_ids, corpus_ids, qrels
                    ).mean()
                )
                for level in model.config.levels
            },
        )

    return measure


def _overlap_metrics(documents: np.ndarray) -> LevelMetrics:
    documents = documents[:MAX_VALIDATION_QUERIES]
    k = min(10, len(documents) - 1)

    def measure(model: nn.Module) -> dict[str, float]:
        transform = adaptor_transform(model)
        return _with_mean(
            "overlap_at_10",
            {level: prefix_overlap(documents, transform(documents, level), k) for level in model.config.levels},
        )

    return measure


def _with_mean(name: str, values: dict[str, float]) -> dict[str, float]:
    """The mean under the name itself, then each level under `<name>_<level>`."""
    mean = float(torch.tensor(list(values.values())).mean())
    return {name: mean, **{f"{name}_{level}": value for level, value in values.items()}}
