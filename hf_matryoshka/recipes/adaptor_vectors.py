"""Everything that adaptor training needs of a data set, encoded once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.base_models import load_base_model
from ..data.embed import embed_texts
from ..data.pseudo_queries import pseudo_queries
from ..data.retrieval import RetrievalDataset
from ..data.vectors import check_vectors


if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


Relevance = list[dict[int, float]]


@dataclass(frozen=True)
class Queries:
    """Vectors of shape `(n, dim)` and, for each, the grades of its relevant documents by position in the corpus."""

    vectors: np.ndarray
    relevance: Relevance

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: Sequence[int] | np.ndarray) -> "Queries":
        return Queries(self.vectors[rows], [self.relevance[row] for row in rows])


@dataclass(frozen=True)
class AdaptorVectors:
    """Full-width vectors of a corpus and of what asks for its documents.

    Args:
        corpus (`np.ndarray` of shape `(num_documents, dim)`):
            The documents.
        titles, sentences ([`Queries`], *optional*):
            Pseudo-queries: parts of the documents, each relevant to the document that it comes from.
        queries ([`Queries`], *optional*):
            Labelled training queries.
        base_model (`str`, *optional*):
            Name of the model that made the vectors.

    Raises:
        ValueError: If vectors are bad, widths differ, or a document that is relevant is not in the corpus.
    """

    corpus: np.ndarray
    titles: Queries | None = None
    sentences: Queries | None = None
    queries: Queries | None = None
    base_model: str | None = None

    def __post_init__(self):
        corpus = check_vectors(self.corpus, name="corpus vectors")
        if len(corpus) < 2:
            raise ValueError(f"an adaptor needs at least 2 documents to learn from, but the corpus has {len(corpus)}")
        object.__setattr__(self, "corpus", corpus)
        for name in ("titles", "sentences", "queries"):
            found = getattr(self, name)
            if found is None:
                continue
            check_vectors(found.vectors, width=corpus.shape[1], name=f"{name} vectors")
            if len(found.vectors) != len(found.relevance):
                raise ValueError(f"{len(found.vectors)} {name} have vectors, but {len(found.relevance)} have labels")
            worst = max((document for grades in found.relevance for document in grades), default=0)
            if worst >= len(corpus):
                raise ValueError(f"document {worst} is relevant to one of the {name}, but there are {len(corpus)}")

    @classmethod
    def from_vectors(
        cls, dataset: RetrievalDataset, corpus: np.ndarray, queries: np.ndarray, split: str = "train"
    ) -> "AdaptorVectors":
        """Vectors that some other model or API made, with the labels of a data set.

        Args:
            dataset ([`RetrievalDataset`]): Ids and relevance.
            corpus (`np.ndarray` of shape `(num_documents, dim)`): In the order of `dataset.corpus_ids`.
            queries (`np.ndarray` of shape `(num_queries, dim)`): In the order of `dataset.query_ids`.
            split (`str`, *optional*, defaults to `"train"`): The labelled queries.

        Raises:
            ValueError: If the numbers of vectors do not fit or the split does not exist.
        """
        for kind, vectors, ids in (("documents", corpus, dataset.corpus_ids), ("queries", queries, dataset.query_ids)):
            if len(vectors) != len(ids):
                raise ValueError(f"{dataset.name} has {len(ids)} {kind}, but {len(vectors)} vectors were given")
        if split not in dataset.qrels:
            raise ValueError(f"{dataset.name} has no split {split!r}; it has {', '.join(sorted(dataset.qrels))}")
        return cls(corpus, queries=labelled_queries(dataset, split, queries))

    @classmethod
    def from_dataset(
        cls,
        dataset: RetrievalDataset,
        model: "SentenceTransformer | str | Path",
        *,
        split: str | None = "train",
        titles: bool = True,
        sentences_per_document: int = 4,
        cache_dir: str | Path | None = None,
        seed: int = 0,
    ) -> "AdaptorVectors":
        """Encodes the documents, their titles and sampled sentences, and the labelled queries, each text once.

        Args:
            dataset ([`RetrievalDataset`]): The texts and labels.
            model (`SentenceTransformer`, `str` or `Path`): The base model.
            split (`str`, *optional*, defaults to `"train"`): The labelled queries; `None`, or a split that the data
                set does not have, for none.
            titles (`bool`, *optional*, defaults to `True`): Whether titles are pseudo-queries.
            sentences_per_document (`int`, *optional*, defaults to 4): Sentences that are pseudo-queries.
            cache_dir (`str` or `Path`, *optional*): Where vectors are kept; see [`embed_texts`].
            seed (`int`, *optional*, defaults to 0): Seed of the sampled sentences.
        """

        encoder = load_base_model(model) if isinstance(model, str | Path) else model

        def embed(texts: Sequence[str], name: str, role: str = "query") -> np.ndarray:
            # Models such as E5 want to be told which side a text is on.
            prompt = encoder.prompts.get(role) or None
            return embed_texts(encoder, texts, cache_dir=cache_dir, name=name, prompt=prompt)

        def pseudo(name: str, **kinds) -> Queries | None:
            try:
                texts, owners = pseudo_queries(dataset, seed=seed, **kinds)
            except ValueError:  # this corpus has no titles, or no sentences of a usable length
                return None
            return Queries(embed(texts, name), [{owner: 1.0} for owner in owners])

        return cls(
            corpus=embed(dataset.documents(), "documents", "document"),
            titles=pseudo("titles", titles=True, sentences_per_document=0) if titles else None,
            sentences=(
                pseudo("sentences", titles=False, sentences_per_document=sentences_per_document)
                if sentences_per_document
                else None
            ),
            queries=labelled_queries(dataset, split, embed(dataset.queries, "queries"))
            if split in dataset.qrels
            else None,
            base_model=str(model) if isinstance(model, str | Path) else None,
        )


def labelled_queries(dataset: RetrievalDataset, split: str, vectors: np.ndarray) -> Queries:
    """The queries of a split that have a relevant document.

    Args:
        dataset ([`RetrievalDataset`]): Ids and relevance.
        split (`str`): Which relevance.
        vectors (`np.ndarray` of shape `(num_queries, dim)`): In the order of `dataset.query_ids`.
    """
    position = {document: row for row, document in enumerate(dataset.corpus_ids)}
    rows, relevance = [], []
    for row, query in enumerate(dataset.query_ids):
        grades = relevant_positions(dataset.qrels[split].get(query, {}), position)
        if grades:
            rows.append(row)
            relevance.append(grades)
    return Queries(vectors[rows], relevance)


def relevant_positions(grades: Mapping[str, int], position: Mapping[str, int]) -> dict[int, float]:
    """Grades above 0 by position in the corpus instead of by document id."""
    return {position[document]: float(grade) for document, grade in grades.items() if grade > 0}
