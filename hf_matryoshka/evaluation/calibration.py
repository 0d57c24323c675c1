"""Whether a model is right as often as it says: the expected calibration error."""

import numpy as np


NUM_BINS = 15


class CalibrationBins:
    """Expected calibration error (ECE) of predictions that come in batches, in constant memory.

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017 (arXiv 1706.04599), equations 2, 3 and 5:
    bins ((m - 1) / M, m / M] of the probability of the predicted class, and the mean over the predictions of
    |accuracy - confidence| of their bin.

    Args:
        num_bins (`int`, *optional*, defaults to 15): Bins of equal width.
    """

    def __init__(self, num_bins: int = NUM_BINS):
        self.edges = np.arange(1, num_bins) / num_bins
        self.counts = np.zeros(num_bins, dtype=np.int64)
        self.correct = np.zeros(num_bins, dtype=np.int64)
        self.confidence = np.zeros(num_bins)

    def update(self, confidence: np.ndarray, correct: np.ndarray) -> None:
        """Adds predictions.

        Args:
            confidence (`np.ndarray` of shape `(n,)`): Probability of each predicted class.
            correct (`np.ndarray` of shape `(n,)`): Whether it is the right one.
        """
        bins = np.searchsorted(self.edges, confidence, side="left")
        size = len(self.counts)
        self.counts += np.bincount(bins, minlength=size)
        self.correct += np.bincount(bins[correct], minlength=size)
        self.confidence += np.bincount(bins, weights=confidence, minlength=size)

    @property
    def accuracy(self) -> float:
        """Share of correct predictions; `nan` without predictions."""
        return float(self.correct.sum() / self.counts.sum()) if self.counts.any() else float("nan")

    @property
    def error(self) -> float:
        """The expected calibration error, in [0, 1]; `nan` without predictions."""
        if not self.counts.any():
            return float("nan")
        return float(np.abs(self.correct - self.confidence).sum() / self.counts.sum())


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, num_bins: int = NUM_BINS) -> float:
    """Expected calibration error of predictions, see [`CalibrationBins`].

    Args:
        confidence (`np.ndarray` of shape `(n,)`): Probability of each predicted class.
        correct (`np.ndarray` of shape `(n,)`): Whether it is the right one.
        num_bins (`int`, *optional*, defaults to 15): Bins of equal width.

    Returns:
        `float`: In [0, 1], lower is better.

    Raises:
        ValueError: If there are no predictions, or a probability is not in [0, 1].
    """
    confidence, correct = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=bool)
    if confidence.shape != correct.shape or not confidence.size:
        raise ValueError(f"calibration needs predictions, got the shapes {confidence.shape} and {correct.shape}")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("the probabilities of predictions must be between 0 and 1")
    bins = CalibrationBins(num_bins)
    bins.update(confidence, correct)
    return bins.error
