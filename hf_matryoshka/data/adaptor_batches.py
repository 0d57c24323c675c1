"""Batches of cached vectors for training an adaptor: anchors, the documents they are compared with, and labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset

from .neighbours import nearest_neighbours
from .vectors import check_vectors


@dataclass(frozen=True)
class AnchorSet:
    """Vectors that are compared with the documents of a corpus, all of one kind.

    Args:
        vectors (`np.ndarray` of shape `(n, dim)`):
            The anchors: documents, pseudo-queries or queries.
        relevance (`Sequence[Mapping[int, float]]`, *optional*):
            For each anchor the grades of its relevant documents, by position in the corpus.
        itself (`np.ndarray` of shape `(n,)`, *optional*):
            For anchors that are documents: the position of each in the corpus. It is never its own candidate.
        label_weight (`float`, *optional*, defaults to 0.0):
            Share of the target distribution that goes to the relevant documents instead of to the neighbours at full
            width (see `rank_distillation_loss`).
        share (`float`, *optional*, defaults to 1.0):
            Share of the training anchors that are drawn from this set, relative to the other sets.
    """

    vectors: np.ndarray
    relevance: Sequence[Mapping[int, float]] | None = None
    itself: np.ndarray | None = None
    label_weight: float = 0.0
    share: float = 1.0

    def __len__(self) -> int:
        return len(self.vectors)


def document_anchors(corpus: np.ndarray, share: float = 1.0) -> AnchorSet:
    """Every document of a corpus as an anchor without labels."""
    return AnchorSet(corpus, itself=np.arange(len(corpus)), share=share)


def labelled_anchors(
    vectors: np.ndarray, relevance: Sequence[Mapping[int, float]], label_weight: float, share: float = 1.0
) -> AnchorSet:
    """Queries, or pseudo-queries with the document that each comes from, as anchors with relevant documents."""
    return AnchorSet(vectors, relevance=relevance, label_weight=label_weight, share=share)


def sample_anchors(sets: Sequence[AnchorSet], num_anchors: int, seed: int = 0) -> Dataset:
    """An epoch of anchors, drawn from the sets in proportion to their shares.

    Each set is gone through in random order, as often as its share needs, so that no anchor of it comes twice before
    every other one came once.

    Args:
        sets (`Sequence[AnchorSet]`): Where the anchors come from.
        num_anchors (`int`): Number of rows.
        seed (`int`, *optional*, defaults to 0): Seed of the draw.

    Returns:
        `datasets.Dataset` with the columns `source` (position in `sets`) and `anchor` (row of the set), shuffled.
    """
    rng = np.random.default_rng(seed)
    shares = np.array([item.share for item in sets], dtype=np.float64)
    ends = np.round(np.cumsum(shares) / shares.sum() * num_anchors).astype(int)
    counts = np.diff(ends, prepend=0)
    sources = np.repeat(np.arange(len(sets)), counts)
    rows = [
        np.concatenate([rng.permutation(len(item)) for _ in range(-(-count // len(item)))])[:count]
        for item, count in zip(sets, counts, strict=True)
        if count
    ]
    order = rng.permutation(num_anchors)
    return Dataset.from_dict({"source": sources[order], "anchor": np.concatenate(rows)[order]})


class AdaptorCollator:
    """Turns rows of [`sample_anchors`] into the tensors that `AdaptorTrainer` takes.

    The candidates of a batch are the relevant documents of its anchors, some near neighbours of each anchor in the
    whole corpus (hard negatives and what the small widths must get right), and random documents. What is drawn
    depends on the seed and on the anchors only, so that a resumed run draws the same.

    Args:
        corpus (`np.ndarray` of shape `(num_documents, dim)`):
            Full-width vectors of the documents.
        sets (`Sequence[AnchorSet]`):
            The anchors.
        rows (`datasets.Dataset`, *optional*):
            The only rows that will come, of [`sample_anchors`]: neighbours are mined for their anchors alone. By
            default for all, which takes a time that grows with the square of the documents.
        num_neighbours (`int`, *optional*, defaults to 32):
            Nearest documents that are mined for each anchor, without itself.
        neighbours_per_anchor (`int`, *optional*, defaults to 4):
            How many of them each anchor adds to the candidates of its batch.
        random_candidates (`int`, *optional*, defaults to 512):
            Random documents in a batch.
        topk (`int`, *optional*, defaults to 10):
            How many of the nearest documents count as neighbours in the top-k loss.
        seed (`int`, *optional*, defaults to 0):
            Seed of the draws.

    Raises:
        ValueError: If the vectors do not fit together or a relevant document is not in the corpus.
    """

    def __init__(
        self,
        corpus: np.ndarray,
        sets: Sequence[AnchorSet],
        *,
        rows: Dataset | None = None,
        num_neighbours: int = 32,
        neighbours_per_anchor: int = 4,
        random_candidates: int = 512,
        topk: int = 10,
        seed: int = 0,
    ):
        self.corpus = check_vectors(corpus, name="corpus vectors")
        self.sets = list(sets)
        self.neighbours_per_anchor = neighbours_per_anchor
        self.random_candidates = min(random_candidates, len(corpus))
        self.topk = topk
        self.seed = seed
        self.neighbours: list[dict[int, np.ndarray]] = []
        columns = None if rows is None else [np.asarray(rows[name]) for name in ("source", "anchor")]
        for source, item in enumerate(self.sets):
            check_vectors(item.vectors, width=corpus.shape[1], name="anchor vectors")
            worst = max((max(grades, default=0) for grades in item.relevance or ()), default=0)
            if worst >= len(corpus):
                raise ValueError(
                    f"document {worst} is relevant to an anchor, but the corpus has {len(corpus)} documents"
                )
            anchors = np.arange(len(item)) if columns is None else np.unique(columns[1][columns[0] == source])
            found = self._mine(item, anchors, min(max(num_neighbours, topk), len(corpus) - 1))
            self.neighbours.append(dict(zip(anchors.tolist(), found, strict=True)))

    def _mine(self, item: AnchorSet, anchors: np.ndarray, count: int) -> np.ndarray:
        """Nearest documents of some anchors, themselves left out."""
        if not len(anchors):
            return np.empty((0, count), dtype=np.int64)
        vectors = item.vectors if len(anchors) == len(item) else item.vectors[anchors]
        found, _ = nearest_neighbours(vectors, self.corpus, count + 1, progress=True)
        if item.itself is not None:
            last = np.argsort(found == item.itself[anchors][:, None], axis=1, kind="stable")
            found = np.take_along_axis(found, last, axis=1)
        return found[:, :count]

    def __call__(self, rows: Sequence[Mapping[str, int]]) -> dict[str, torch.Tensor]:
        pairs = [(int(row["source"]), int(row["anchor"])) for row in rows]
        rng = np.random.default_rng([self.seed, *(number for pair in pairs for number in pair)])
        labels = [self.sets[source].relevance for source, _ in pairs]
        grades = [{} if label is None else label[row] for label, (_, row) in zip(labels, pairs, strict=True)]
        picked = [
            rng.choice(near := self.neighbours[source][row], min(self.neighbours_per_anchor, len(near)), replace=False)
            for source, row in pairs
        ]
        drawn = rng.choice(len(self.corpus), self.random_candidates, replace=False)
        relevant = np.array([document for found in grades for document in found], dtype=np.int64)
        candidates = np.unique(np.concatenate([*picked, drawn, relevant]))

        places = [(self.sets[source].itself, row) for source, row in pairs]
        itself = np.array([-1 if place is None else place[row] for place, row in places])
        top = np.stack([self.neighbours[source][row][: self.topk] for source, row in pairs])
        relevance = np.zeros((len(pairs), len(candidates)), dtype=np.float32)
        for position, found in enumerate(grades):
            if found:
                relevance[position, np.searchsorted(candidates, list(found))] = list(found.values())
        return {
            "anchors": torch.from_numpy(np.stack([self.sets[source].vectors[row] for source, row in pairs])),
            "candidates": torch.from_numpy(self.corpus[candidates]),
            "allowed": torch.from_numpy(itself[:, None] != candidates[None, :]),
            "neighbours": torch.from_numpy((top[:, :, None] == candidates[None, None, :]).any(axis=1)),
            "relevance": torch.from_numpy(relevance),
            "label_weight": torch.tensor([self.sets[source].label_weight for source, _ in pairs]),
        }
