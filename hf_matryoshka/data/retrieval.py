"""The one shape in which retrieval data travels through the package."""

from collections.abc import Sequence
from dataclasses import dataclass, field


Qrels = dict[str, dict[str, int]]
"""Relevance judgements of one split: query id -> document id -> grade (0 is "judged, not relevant")."""


@dataclass(frozen=True)
class RetrievalDataset:
    """A corpus, queries, and the graded judgements that tie them together.

    Args:
        name (`str`):
            Name of the data set, as it appears in tables and cards.
        corpus_ids (`list[str]`):
            One unique id a document.
        titles (`list[str]`):
            One title a document; `""` where there is none.
        texts (`list[str]`):
            One body a document.
        query_ids (`list[str]`):
            One unique id a query. All splits together; may be empty when only documents are at hand.
        queries (`list[str]`):
            One text a query.
        qrels (`dict[str, dict[str, dict[str, int]]]`):
            Split name -> query id -> document id -> grade.

    Raises:
        ValueError: if the corpus is empty, lengths differ, an id occurs twice, or the judgements name an unknown
            query or document.
    """

    name: str
    corpus_ids: list[str]
    titles: list[str]
    texts: list[str]
    query_ids: list[str]
    queries: list[str]
    qrels: dict[str, Qrels] = field(default_factory=dict)

    def __post_init__(self):
        if not self.corpus_ids:
            raise ValueError(f"the corpus of {self.name!r} is empty; at least one document is needed")
        self._check_lengths("corpus_ids", self.corpus_ids, titles=self.titles, texts=self.texts)
        self._check_lengths("query_ids", self.query_ids, queries=self.queries)
        self._check_unique("document", self.corpus_ids)
        self._check_unique("query", self.query_ids)
        self._check_known("query", "queries", self.query_ids, {s: list(judged) for s, judged in self.qrels.items()})
        judged_documents = {
            split: [document for grades in judged.values() for document in grades]
            for split, judged in self.qrels.items()
        }
        self._check_known("document", "documents", self.corpus_ids, judged_documents)

    def documents(self) -> list[str]:
        """Title and text of each document as one string, as MTEB encodes them.

        Returns:
            `list[str]`: `(title + " " + text).strip()` for each document.
        """
        return [f"{title} {text}".strip() for title, text in zip(self.titles, self.texts, strict=True)]

    def _check_lengths(self, reference: str, ids: Sequence[str], **columns: Sequence[str]):
        for column, values in columns.items():
            if len(values) != len(ids):
                raise ValueError(
                    f"{self.name!r} has {len(ids)} {reference} but {len(values)} {column}; give one for each id"
                )

    def _check_unique(self, kind: str, ids: Sequence[str]):
        seen: set[str] = set()
        repeated = [identifier for identifier in ids if identifier in seen or seen.add(identifier)]  # type: ignore[func-returns-value]
        if repeated:
            raise ValueError(
                f"{self.name!r} repeats the {kind} id {repeated[0]!r} "
                f"({len(repeated)} repeated {kind} ids in all); ids must be unique"
            )

    def _check_known(self, kind: str, plural: str, ids: Sequence[str], used: dict[str, list[str]]):
        known = set(ids)
        for split, names in used.items():
            unknown = list(dict.fromkeys(name for name in names if name not in known))
            if unknown:
                raise ValueError(
                    f"the {split!r} qrels of {self.name!r} name the unknown {kind} {unknown[0]!r} "
                    f"({len(unknown)} unknown {plural} in all); every judged {kind} must be among the "
                    f"{len(known)} {plural} of the data set"
                )
