"""The `evaluate` module of [`hf_matryoshka.evaluation.metrics.monotonicity_violations`]."""

import datasets
import evaluate

from hf_matryoshka.evaluation.metrics import monotonicity_violations


_DESCRIPTION = "Pairs of levels of a nested family of which the larger is worse than the smaller."

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[float]`): Quality of each level, the smallest level first.
    tolerance (`float`, *optional*, defaults to 0.0): How much worse the larger level may be.

Returns:
    monotonicity_violations (`int`): Number of pairs; 0 is best.
    pairs (`list[tuple[int, int]]`): Their indices, (smaller level, larger level).

Examples:
    >>> metric = evaluate.load("monotonicity_violations")
    >>> metric.compute(predictions=[0.25, 0.5, 0.375])
    {'monotonicity_violations': 1, 'pairs': [(1, 2)]}
"""

_CITATION = """
@misc{hf_matryoshka,
    title = {hf-matryoshka: train one Matryoshka model, ship many sizes of it},
    howpublished = {Python package},
}
"""


class MonotonicityViolations(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": datasets.Value("float64")}),
        )

    def _compute(self, predictions: list[float], tolerance: float = 0.0) -> dict[str, int | list[tuple[int, int]]]:
        pairs = monotonicity_violations(predictions, tolerance=tolerance)
        return {"monotonicity_violations": len(pairs), "pairs": pairs}
