"""One MTEB run: the main score, and where it is a mean over examples, the values behind it."""

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import mteb
import numpy as np
from mteb.abstasks import AbsTaskClassification, AbsTaskRetrieval, AbsTaskSTS
from mteb.abstasks.abstask import AbsTask
from sklearn.exceptions import UndefinedMetricWarning

from .bootstrap import bootstrap_mean
from .metrics import spearman_influence
from .mteb_encoder import CachedLevelEncoder


# mteb's names of scores -> those of pytrec_eval, a value a query
_RETRIEVAL_SCORES = {"ndcg_at_": "ndcg_cut_", "map_at_": "map_cut_", "recall_at_": "recall_", "precision_at_": "P_"}


@dataclass(frozen=True)
class TaskScore:
    """Main score of one run, its 95% interval and the values it is the mean of (`None` where it is no mean)."""

    score: float
    low: float | None
    high: float | None
    per_example: np.ndarray | None


def run_task(
    encoder: CachedLevelEncoder, task: AbsTask, split: str, results_dir: str | Path | None = None
) -> TaskScore:
    """Evaluate one level on one split of a task.

    Args:
        encoder ([`CachedLevelEncoder`]): The level.
        task (`AbsTask`): A task of MTEB whose data is loaded.
        split (`str`): The split.
        results_dir (`str` or `Path`, *optional*): Where MTEB's result files go, in the layout of its public results.

    Returns:
        [`TaskScore`]: The score. Values a query exist for nDCG, MAP, recall and precision of retrieval; values a pair
        for Spearman's correlation of STS, see [`~evaluation.metrics.spearman_influence`]; values a text for the
        accuracy of classification (the mean over mteb's repeated fits).
    """
    cache = None if results_dir is None else mteb.ResultCache(Path(results_dir))
    with tempfile.TemporaryDirectory() as folder, _only_split(task, split), _quiet(), _query_scores(task) as queries:
        # Vectors are cached, results are not read back: mteb keeps means only, and intervals need the values.
        result = mteb.evaluate(
            encoder,  # type: ignore[arg-type]  # its protocol names what is handed through `**kwargs`
            task,
            cache=cache,
            overwrite_strategy="always",
            co2_tracker=False,
            prediction_folder=None if isinstance(task, AbsTaskRetrieval) else folder,
            show_progress_bar=False,
        )
        scores = result.task_results[0].scores[split]
        values = None
        if len(scores) == 1:
            if isinstance(task, AbsTaskRetrieval):
                values = _retrieval_values(task, queries)
            elif (Path(folder) / task.prediction_file_name).is_file():
                predictions = json.loads((Path(folder) / task.prediction_file_name).read_text(encoding="utf-8"))
                values = _example_values(task, predictions[scores[0]["hf_subset"]][split], split)
    score = float(np.mean([subset["main_score"] for subset in scores]))
    if values is None:
        return TaskScore(score, None, None, None)
    _, low, high = bootstrap_mean(values)
    return TaskScore(score, low, high, values)


@contextmanager
def _only_split(task: AbsTask, split: str) -> Iterator[None]:
    before = task.eval_splits
    task.filter_eval_splits([split])
    try:
        yield
    finally:
        task.filter_eval_splits(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what mteb would say at every level: bars of its corpus mapping, and that a task has a successor."""
    logger = logging.getLogger("mteb")
    level, bars = logger.level, not datasets.are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The task .* is superseded", category=UserWarning)
            warnings.filterwarnings("ignore", category=UndefinedMetricWarning)
            yield
    finally:
        logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


@contextmanager
def _query_scores(task: AbsTask) -> Iterator[dict[str, dict[str, float]]]:
    """The scores of each query, taken where a retrieval task offers them: its hook for scores of its own."""
    found: dict[str, dict[str, float]] = {}
    if not isinstance(task, AbsTaskRetrieval):
        yield found
        return
    original = task.task_specific_scores

    def capture(scores: dict[str, dict[str, float]], *args: Any, **kwargs: Any) -> dict[str, float]:
        found.update(scores)
        return original(scores, *args, **kwargs)

    task.task_specific_scores = capture  # type: ignore[method-assign]
    try:
        yield found
    finally:
        del task.task_specific_scores


def _retrieval_values(task: AbsTaskRetrieval, queries: dict[str, dict[str, float]]) -> np.ndarray | None:
    main = task.metadata.main_score
    for prefix, trec in _RETRIEVAL_SCORES.items():
        if main.startswith(prefix) and main[len(prefix) :].isdigit():
            # Sorted, so that every level and system has the queries in one order.
            return np.array([queries[query_id][trec + main[len(prefix) :]] for query_id in sorted(queries)])
    return None


def _example_values(task: AbsTask, predictions: Any, split: str) -> np.ndarray | None:
    dataset: Any = task.dataset
    data = dataset.get("default", dataset)[split]
    if isinstance(task, AbsTaskSTS) and task.metadata.main_score in ("cosine_spearman", "spearman"):
        return spearman_influence(np.array(predictions["cosine_scores"]), np.array(data["score"]))
    if isinstance(task, AbsTaskClassification) and task.metadata.main_score == "accuracy":
        return (np.array(predictions) == np.array(data[task.label_column_name])).mean(axis=0)
    return None
