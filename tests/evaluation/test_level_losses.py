"""Losses of rows and texts at a level."""

import numpy as np
import pytest

from hf_matryoshka import nest_sentence_encoder, run_full_evaluation
from hf_matryoshka.evaluation.level_losses import EmbeddingLosses, MaskedLmLosses, losses_curve

from ..modeling.delta_models import make
from .test_masked_lm import BATCHES


TEXTS = ["a cat", "the large river in the city of the small fish", "protein", "dog and bird"]


def test_those_of_a_masked_language_model_are_those_of_the_whole_evaluation():
    model = make("DeltaModernBertForMaskedLM", "heads")
    score = MaskedLmLosses(BATCHES, model.config.vocab_size)
    expected = run_full_evaluation(model, BATCHES, latency_repeats=0, progress=False)["curve"]
    losses = {level: score(model, level)[0] for level in model.config.levels}
    weights = score(model, model.config.levels[0])[1]
    curve = losses_curve(model, score, "validation", losses, weights)
    assert len(score) == 7 == len(weights) and curve.metric == expected.metric == "negative_nll"
    for found, point in zip(curve.points, expected.points, strict=True):
        np.testing.assert_allclose(found.per_query, point.per_query, rtol=1e-6)
        np.testing.assert_array_equal(found.weights, point.weights)
        assert (found.quality, found.low) == pytest.approx((point.quality, point.low))
        assert found.level == point.level and found.contains == point.contains
        assert found.cost["parameters"] == point.cost["parameters"] and "flops_per_token" in found.cost


def test_those_of_embeddings_are_cosines_to_the_teacher(tiny_sentence_transformer):
    model = nest_sentence_encoder(tiny_sentence_transformer, [[0.5, 1, 1], [1.0, 2, 2]], residual="joint")
    targets = model.encode(TEXTS)
    score = EmbeddingLosses(model, TEXTS, 3 * targets)
    small, full = model[0].levels
    losses, weights = score(model[0].model, full)
    assert weights is None and len(score) == 4
    np.testing.assert_allclose(losses, 0, atol=1e-6)
    vectors = model.encode(TEXTS, level=small)
    leading = targets[:, :16] / np.linalg.norm(targets[:, :16], axis=1, keepdims=True)
    found, _ = score(model[0].model, small)
    np.testing.assert_allclose(found, 1 - (vectors * leading).sum(1), atol=1e-6)
    curve = losses_curve(model[0].model, score, "heldout", {small: found, full: losses}, None)
    assert curve.metric == "cosine_to_teacher" and curve.qualities[1] == pytest.approx(1)
    assert curve.qualities[0] == pytest.approx(1 - found.mean())
