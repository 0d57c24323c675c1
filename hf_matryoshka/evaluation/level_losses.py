"""Loss of each held-out row or text at a level, for a comparison of levels on the same items."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import PreTrainedModel

from .bootstrap import bootstrap_mean
from .curve import Curve, LevelPoint
from .encoder_cost import encoder_cost
from .masked_lm_scores import check_batches, score_levels


if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class MaskedLmLosses:
    """Negative log-likelihood (nats) of the masked tokens of each row, a mean over them; the tokens are its weight.

    Args:
        loader (`Iterable[Mapping]`): Batches with the same masks whenever they are read, as for
            [`~evaluation.masked_lm.run_full_evaluation`].
        vocab_size (`int`): Embeddings of the model.

    Raises:
        ValueError: If there are no batches, none has a masked token, or a token has no embedding.
    """

    metric = "nll"
    quality_metric = "negative_nll"
    best_quality = 0.0

    def __init__(self, loader: Iterable[Mapping[str, Any]], vocab_size: int):
        self.loader = loader
        self.batches = check_batches(loader, vocab_size)
        self.masked = self.batches.counts > 0

    def __len__(self) -> int:
        return int(self.masked.sum())

    def __call__(self, model: PreTrainedModel, level: str) -> tuple[np.ndarray, np.ndarray]:
        """Loss and weight of each row that has masked tokens."""
        scores = score_levels(model, self.loader, [level], self.batches, progress=False)[level]
        weights = self.batches.counts[self.masked].astype(np.float64)
        return np.concatenate(scores.nll)[self.masked] / weights, weights


class EmbeddingLosses:
    """1 - cosine of each text's embedding and the one it should have.

    Args:
        encoder (`SentenceTransformer`): A model whose encoder is nested.
        texts (`Sequence[str]`): The texts.
        targets (`np.ndarray` of shape `(texts, dim)`): Their embeddings by the teacher, such as the model before it
            was nested. A level with narrower embeddings is compared with their leading numbers.
        batch_size (`int`, *optional*, defaults to 64): Texts of a batch.
    """

    metric = "cosine_distance_to_teacher"
    quality_metric = "cosine_to_teacher"
    best_quality = 1.0

    def __init__(
        self, encoder: "SentenceTransformer", texts: Sequence[str], targets: np.ndarray, batch_size: int = 64
    ):
        self.encoder, self.texts, self.targets, self.batch_size = encoder, list(texts), targets, batch_size

    def __len__(self) -> int:
        return len(self.texts)

    def __call__(self, model: PreTrainedModel, level: str) -> tuple[np.ndarray, None]:
        """Loss of each text; `model` is the encoder's own, `encoder[0].model`."""
        vectors = self.encoder.encode(self.texts, batch_size=self.batch_size, show_progress_bar=False, level=level)
        vectors, targets = vectors.astype(np.float64), self.targets[:, : vectors.shape[1]].astype(np.float64)
        norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(targets, axis=1)
        return 1 - (vectors * targets).sum(1) / np.where(norms > 0, norms, 1), None


def losses_curve(
    model: PreTrainedModel,
    score: MaskedLmLosses | EmbeddingLosses,
    split: str,
    losses: Mapping[str, np.ndarray],
    weights: np.ndarray | None,
) -> Curve:
    """The losses of levels as quality against cost.

    Args:
        model (`PreTrainedModel`): The nested encoder.
        score ([`MaskedLmLosses`] or [`EmbeddingLosses`]): What the losses came from.
        split (`str`): Name of the data behind them.
        losses (`Mapping[str, np.ndarray]`): Loss of each item by level, the smallest first.
        weights (`np.ndarray`, *optional*): What each item stands for.
    """
    points, config = [], model.config
    for number, (level, values) in enumerate(losses.items()):
        quality = score.best_quality - values
        mean, low, high = bootstrap_mean(quality, weights=weights)
        inside = tuple(name for name in list(losses)[:number] if config.fits_in(name, level))
        cost = encoder_cost(model, level, repeats=0)
        points.append(LevelPoint(level, None, mean, low, high, cost, quality, weights, inside))
    return Curve(points, score.quality_metric, split, "ours")
