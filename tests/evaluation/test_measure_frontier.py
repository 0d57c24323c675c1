import numpy as np
import pytest

from hf_matryoshka import Frontier, measure_frontier
from hf_matryoshka.data.retrieval import RetrievalDataset

from ..modeling.mamba_models import make


@pytest.fixture(scope="module")
def dataset():
    documents, queries = [f"document {number}" for number in range(30)], [f"query {number}" for number in range(12)]
    ids = [f"d{number}" for number in range(30)]
    qrels = {"test": {f"q{number}": {f"d{number}": 1} for number in range(12)}}
    return RetrievalDataset("made", ids, [""] * 30, documents, [f"q{number}" for number in range(12)], queries, qrels)


def encode(texts, level):
    """The same vector for a query and its document, with more noise in a query at a small level."""
    noise = {"w0.25": 1.0, "w0.5": 0.5, "w1.0": 0.0}[level]
    vectors = []
    for text in texts:
        kind, number = text.split()
        vector = np.random.default_rng(int(number)).standard_normal(48)
        own = np.random.default_rng(1000 + int(number)).standard_normal(48)
        vectors.append(vector + noise * own * (kind == "query"))
    return np.stack(vectors)


def test_every_dimension_and_level_is_scored_and_timed(dataset):
    model = make().train()
    frontier = measure_frontier(model, encode, dataset, lengths=(4, 20), repeats=1, progress=False)
    assert isinstance(frontier, Frontier) and model.training
    assert [(point.level, point.dim) for point in frontier.points] == [
        (level, dim) for level in ("w0.25", "w0.5", "w1.0") for dim in (8, 16, 48)
    ]
    for point in frontier.points:
        assert len(point.scores) == 12 and set(point.latency_ms) == {4, 20} and min(point.latency_ms.values()) > 0
    assert frontier.points[-1].quality == 1 and frontier.points[0].quality < 1
    assert (frontier.metric, frontier.split) == ("ndcg_at_10", "made test")
    model.frontier = frontier
    assert model.select_optimal_dimension(0.99).level in model.config.levels


def test_bad_arguments_are_named(dataset):
    with pytest.raises(ValueError, match="split 'dev' does not exist in made; its splits are: test"):
        measure_frontier(make(), encode, dataset, split="dev", progress=False)
    for lengths in ((), (0, 4)):
        with pytest.raises(ValueError, match="lengths must be positive"):
            measure_frontier(make(), encode, dataset, lengths=lengths, progress=False)
