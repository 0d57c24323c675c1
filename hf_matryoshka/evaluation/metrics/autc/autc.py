"""The `evaluate` module of [`hf_matryoshka.evaluation.metrics.autc`]."""

import datasets
import evaluate

from hf_matryoshka.evaluation.metrics import autc


_DESCRIPTION = (
    "Area under the trade-off curve: the mean quality of a family of models over the log of their cost, scaled to "
    "[0, 1]."
)

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[float]`): Quality of each level.
    references (`list[float]`): Positive cost of each level, for example bytes per vector.
    envelope (`bool`, *optional*, defaults to `False`): Whether only levels count that no cheaper one equals.

Returns:
    autc (`float`): The area; between the smallest and the largest quality, higher is better.

Examples:
    >>> metric = evaluate.load("autc")
    >>> metric.compute(predictions=[0.25, 0.5], references=[64, 256])
    {'autc': 0.375}
"""

_CITATION = """
@misc{hf_matryoshka,
    title = {hf-matryoshka: train one Matryoshka model, ship many sizes of it},
    howpublished = {Python package},
}
"""


class Autc(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
            ),
        )

    def _compute(self, predictions: list[float], references: list[float], envelope: bool = False) -> dict[str, float]:
        return {"autc": autc(costs=references, qualities=predictions, envelope=envelope)}
