"""MTEB at every dimension and every level of a Matryoshka Mamba encoder."""

import json

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from hf_matryoshka import mamba_sentence_encoder, nest_sentence_encoder
from hf_matryoshka.data.retrieval import RetrievalDataset
from hf_matryoshka.evaluation.evaluate_levels import evaluate_levels
from hf_matryoshka.evaluation.mteb_tasks import retrieval_task
from hf_matryoshka.evaluation.retrieval import score_retrieval

from ..modeling import mamba_models


WORDS = "cat dog bird fish river city gene cell protein drug".split()
DIMS = [8, 16, 48]


@pytest.fixture(scope="module")
def model(tiny_sentence_transformer):
    return mamba_sentence_encoder(mamba_models.make(), AutoTokenizer.from_pretrained(tiny_sentence_transformer))


@pytest.fixture(scope="module")
def dataset():
    pairs = [(a, b) for a in WORDS for b in WORDS if a != b][:40]
    return RetrievalDataset(
        name="Words",
        corpus_ids=[f"d{i}" for i in range(40)],
        titles=[""] * 40,
        texts=[f"the {a} of the {b} is {i}" for i, (a, b) in enumerate(pairs)],
        query_ids=[f"q{i}" for i in range(20)],
        queries=[f"{a} in a {b}" for a, b in pairs[:20]],
        qrels={"test": {f"q{i}": {f"d{i}": 2, f"d{i + 20}": 1} for i in range(20)}},
    )


def evaluate(model, dataset, **kwargs):
    return evaluate_levels(
        model, retrieval_task("Words", dataset), baselines=False, progress=False, latency_repeats=0, **kwargs
    )


def test_every_dimension_at_every_level(model, dataset, tmp_path):
    seen = {}
    for level in (None, "w0.25", "w0.5"):
        curve = evaluate(model, dataset, encoder_level=level, cache_dir=tmp_path / "vectors", results_dir=tmp_path)
        assert curve.levels == [f"d{dim}" for dim in DIMS] and [point.dim for point in curve.points] == DIMS
        queries = model.encode(dataset.queries, level=level)
        corpus = model.encode(list(dataset.documents()), level=level)
        expected = score_retrieval(lambda v, dim, kind: v[:, :dim], queries, corpus, dataset, DIMS, system="ours")
        for found, wanted in zip(curve.points, expected["test"].points, strict=True):
            np.testing.assert_allclose(found.per_query, wanted.per_query, atol=1e-6)
        seen[level] = [point.quality for point in curve.points]
    assert seen[None] != seen["w0.25"] != seen["w0.5"]
    # Nothing that mteb keeps is given out for another level: the widths have names, the levels revisions.
    metas = [json.loads(path.read_text()) for path in tmp_path.rglob("model_meta.json")]
    assert len({meta["revision"] for meta in metas}) == 3


def test_a_level_of_an_encoder_that_has_none(model, dataset, tiny_sentence_transformer):
    with pytest.raises(ValueError, match="level 'w0.3' does not exist; choose one of w0.25, w0.5, w1.0"):
        evaluate(model, dataset, encoder_level="w0.3")
    plain = SentenceTransformer(tiny_sentence_transformer, device="cpu")
    with pytest.raises(ValueError, match="encoder_level is 'w0.5', but the encoder of this model has no levels"):
        evaluate(plain, dataset, encoder_level="w0.5", levels=[4])


def test_a_level_with_narrower_embeddings(dataset, tiny_sentence_transformer):
    """A nested BERT whose residual stream is cut with the heads."""
    model = nest_sentence_encoder(tiny_sentence_transformer, [[0.5, 1, 1], [1.0, 2, 2]], [4, 16, 32], residual="joint")
    assert evaluate(model, dataset).levels == ["d4", "d16", "d32"]
    assert evaluate(model, dataset, encoder_level=0).levels == ["d4", "d16"]
