"""The `evaluate` module of [`hf_matryoshka.evaluation.metrics.prefix_overlap`]."""

import datasets
import evaluate
import numpy as np

from hf_matryoshka.evaluation.metrics import prefix_overlap


_DESCRIPTION = "Share of the nearest neighbours of full-width embeddings that a smaller width keeps."

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[list[float]]`): Vectors at the smaller width.
    references (`list[list[float]]`): The same items at full width.
    k (`int`, *optional*, defaults to 10): Number of nearest neighbours, by cosine, without the item itself.

Returns:
    prefix_overlap (`float`): Mean share, from 0 to 1, higher is better.

Examples:
    >>> metric = evaluate.load("prefix_overlap")
    >>> full = [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]
    >>> metric.compute(predictions=full, references=full, k=1)
    {'prefix_overlap': 1.0}
"""

_CITATION = """
@misc{hf_matryoshka,
    title = {hf-matryoshka: train one Matryoshka model, ship many sizes of it},
    howpublished = {Python package},
}
"""


class PrefixOverlap(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float32")),
                    "references": datasets.Sequence(datasets.Value("float32")),
                }
            ),
        )

    def _compute(self, predictions: list[list[float]], references: list[list[float]], k: int = 10) -> dict[str, float]:
        full, prefix = np.asarray(references, dtype=np.float32), np.asarray(predictions, dtype=np.float32)
        return {"prefix_overlap": prefix_overlap(full, prefix, k=k)}
