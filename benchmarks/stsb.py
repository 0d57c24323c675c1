"""Sentence encoders on the pairs of STS-B, for the benchmarks."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer

from hf_matryoshka.evaluation.bootstrap import bootstrap_mean
from hf_matryoshka.evaluation.metrics import spearman_influence


RESAMPLES = 1000
Encode = Callable[[list[str]], np.ndarray]


def read_pairs(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    return [row[0] for row in rows], [row[1] for row in rows], np.array([float(row[2]) for row in rows])


class SentencePairs:
    """STS-B pairs: the rank correlation of cosine and score, with its 95% interval."""

    def __init__(self, path: Path):
        self.first, self.second, self.scores = read_pairs(path)
        rng = np.random.default_rng(0)
        self.draws = [rng.integers(len(self.scores), size=len(self.scores)) for _ in range(RESAMPLES)]

    def encode(self, encode: Encode) -> np.ndarray:
        return encode(self.first + self.second)

    def cosines(self, vectors: np.ndarray, dim: int | None = None) -> np.ndarray:
        vectors = vectors[:, :dim] / np.linalg.norm(vectors[:, :dim], axis=1, keepdims=True)
        return (vectors[: len(self.first)] * vectors[len(self.first) :]).sum(1)

    def score(self, vectors: np.ndarray, dim: int | None = None) -> dict[str, float]:
        cosines = self.cosines(vectors, dim)
        drawn = [spearmanr(cosines[draw], self.scores[draw]).statistic for draw in self.draws]
        low, high = np.quantile(drawn, [0.025, 0.975])
        return {"value": float(spearmanr(cosines, self.scores).statistic), "low": float(low), "high": float(high)}

    def difference(self, first: np.ndarray, second: np.ndarray) -> dict[str, float]:
        """Of the correlations of two systems, given their cosines, with its 95% interval over the pairs."""
        values = spearman_influence(first, self.scores) - spearman_influence(second, self.scores)
        mean, low, high = bootstrap_mean(values)
        return {"value": float(mean), "low": float(low), "high": float(high)}


def encoder(model: SentenceTransformer, **kwargs) -> Encode:
    return lambda texts: model.encode(texts, batch_size=64, show_progress_bar=False, **kwargs)


def half_precision(encode: Encode) -> Encode:
    def run(texts: list[str]) -> np.ndarray:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return encode(texts).astype(np.float32)

    return run
