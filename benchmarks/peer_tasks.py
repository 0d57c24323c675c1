"""Retrieval, similarity, classification and a folder of texts in one shape, for trainings of different libraries."""

import csv
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from adaptor_scifact import few_documents
from stsb import read_pairs

from hf_matryoshka.data.beir import load_beir
from hf_matryoshka.data.pseudo_queries import pseudo_queries
from hf_matryoshka.data.retrieval import RetrievalDataset
from hf_matryoshka.data.sentences import split_sentences
from hf_matryoshka.evaluation.baselines import unit
from hf_matryoshka.evaluation.metrics import spearman_influence
from hf_matryoshka.evaluation.retrieval import score_retrieval


# Similarity of two sentences, of 5, from which on they are relevant to each other.
RELEVANT = 4.0
NEIGHBOURS = 10
PASSAGE, SENTENCE = (300, 1200), (40, 300)


@dataclass(frozen=True)
class PeerTask:
    """What is trained on and what is measured.

    Args:
        name (`str`): Of the task.
        metric (`str`): Of the values.
        training ([`RetrievalDataset`]): Documents and labelled queries, if there are any, of the split `train`.
        columns (`dict[str, list]`): The same for trainers of sentence-transformers: `anchor` and `positive`, or
            `sentence1`, `sentence2` and `score`.
        groups (`list[int]`, *optional*): Of each row; rows of one group are never in one batch.
        queries, documents (`list[str]`): What is encoded to be scored.
        score (`Callable`): Vectors of queries and of documents in, a value an item for each split out.
    """

    name: str
    metric: str
    training: RetrievalDataset
    columns: dict[str, list]
    groups: list[int] | None
    queries: list[str]
    documents: list[str]
    score: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]


def retrieval(
    name: str, training: RetrievalDataset, scored: RetrievalDataset, pairs: list[tuple[str, str]]
) -> PeerTask:
    def score(queries: np.ndarray, documents: np.ndarray) -> dict[str, np.ndarray]:
        width = documents.shape[1]
        found = score_retrieval(lambda vectors, *_: vectors, queries, documents, scored, [width], system="")
        return {split: curve[f"d{width}"].per_query for split, curve in found.items()}

    columns = {"anchor": [query for query, _ in pairs], "positive": [document for _, document in pairs]}
    return PeerTask(name, "ndcg_at_10", training, columns, None, scored.queries, scored.documents(), score)


def scifact(data: Path, limit: int | None) -> PeerTask:
    """SciFact: labelled claims and the abstracts that speak of them."""
    dataset = few_documents(load_beir(data / "scifact"), limit)
    documents = dict(zip(dataset.corpus_ids, dataset.documents(), strict=True))
    queries = dict(zip(dataset.query_ids, dataset.queries, strict=True))
    labelled = [
        (queries[query], documents[document])
        for query, grades in dataset.qrels["train"].items()
        for document, grade in grades.items()
        if grade > 0
    ]
    return retrieval("scifact", dataset, dataset, labelled[:limit])


def stsb(data: Path, limit: int | None) -> PeerTask:
    """STS-B: pairs of sentences with a similarity from 0 to 5; pairs from `RELEVANT` on are query and document."""
    first, second, scores = (part[:limit] for part in read_pairs(data / "stsb" / "stsb-en-train.csv"))
    texts = list(dict.fromkeys([*first, *second]))
    ids = {text: str(number) for number, text in enumerate(texts)}
    relevant: dict[str, dict[str, int]] = {}
    for one, other, value in zip(first, second, scores, strict=True):
        if value >= RELEVANT and one != other:
            relevant.setdefault(ids[one], {})[ids[other]] = 1
    training = RetrievalDataset(
        "STS-B", list(ids.values()), [""] * len(texts), texts, list(ids.values()), texts, {"train": relevant}
    )
    one, other, gold = read_pairs(data / "stsb" / "stsb-en-test.csv")

    def score(queries: np.ndarray, documents: np.ndarray) -> dict[str, np.ndarray]:
        return {"test": spearman_influence((unit(queries) * unit(documents)).sum(1), gold)}

    columns = {"sentence1": first, "sentence2": second, "score": [float(value) / 5 for value in scores]}
    return PeerTask("stsb", "spearman", training, columns, None, one, other, score)


def banking77(data: Path, limit: int | None) -> PeerTask:
    """Banking77: a text has the intent that most of its `NEIGHBOURS` nearest training texts have."""
    (texts, labels), (queries, gold) = (_labelled(data / "banking77" / f"{part}.csv") for part in ("train", "test"))
    order = random.Random(0).sample(range(len(texts)), len(texts))[:limit]
    texts, labels = [texts[row] for row in order], [labels[row] for row in order]
    names = sorted(set(labels))
    known = np.array([names.index(label) for label in labels])
    expected = np.array([names.index(label) if label in names else -1 for label in gold])
    # One half asks for the other: no text is its own answer.
    half = len(texts) // 2
    ids = [str(row) for row in range(len(texts))]
    relevant = {
        ids[row]: {ids[other]: 1 for other in np.flatnonzero(known[:half] == known[row])}
        for row in range(half, len(texts))
        if (known[:half] == known[row]).any()
    }
    training = RetrievalDataset(
        "Banking77", ids[:half], [""] * half, texts[:half], ids[half:], texts[half:], {"train": relevant}
    )

    def score(vectors: np.ndarray, documents: np.ndarray) -> dict[str, np.ndarray]:
        cosines = unit(vectors) @ unit(documents).T
        nearest = np.argpartition(-cosines, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        votes = np.zeros((len(vectors), len(names)))
        # Weighted by cosine, so that there are no ties.
        rows = np.arange(len(vectors))[:, None]
        np.add.at(votes, (rows, known[nearest]), cosines[rows, nearest])
        return {"test": (votes.argmax(1) == expected).astype(np.float64)}

    partners = _partners(known)
    columns = {"anchor": [texts[row] for row, _ in partners], "positive": [texts[other] for _, other in partners]}
    groups = [int(known[row]) for row, _ in partners]
    return PeerTask("banking77", "accuracy", training, columns, groups, queries, texts, score)


def folder(path: Path, limit: int | None) -> PeerTask:
    """Passages of a folder of text files. Of each, one sentence is taken out and asks for the rest; there are no
    labels, and training pairs are other sentences with the passages that they are from."""
    rng = random.Random(0)
    texts, queries = [], []
    for file in sorted(path.rglob("*.txt")):
        for line in file.read_text(encoding="utf-8").splitlines():
            if not PASSAGE[0] <= len(line) <= PASSAGE[1]:
                continue
            sentences = split_sentences(line)
            usable = [row for row, found in enumerate(sentences) if SENTENCE[0] <= len(found) <= SENTENCE[1]]
            if len(sentences) < 3 or not usable:
                continue
            queries.append(sentences.pop(rng.choice(usable)))
            texts.append(" ".join(sentences))
    texts, queries = texts[:limit], queries[:limit]
    ids = [str(row) for row in range(len(texts))]
    test = rng.sample(ids, min(1000, len(ids)))
    scored = RetrievalDataset(
        path.name, ids, [""] * len(ids), texts, ids, queries, {"test": {query: {query: 1} for query in test}}
    )
    training = RetrievalDataset(path.name, ids, [""] * len(ids), texts, [], [])
    anchors, owners = pseudo_queries(training, titles=False, sentences_per_document=4)
    return retrieval("folder", training, scored, list(zip(anchors, (texts[row] for row in owners), strict=True)))


def _labelled(path: Path) -> tuple[list[str], list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [row["category"] for row in rows]


def _partners(labels: np.ndarray) -> list[tuple[int, int]]:
    """Each row with another one of its label."""
    rng = np.random.default_rng(0)
    pairs = []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        if len(rows) > 1:
            pairs += zip(rows.tolist(), np.roll(rows, 1).tolist(), strict=True)
    return pairs
