"""Measured scores in the two forms that the Hub reads: `.eval_results/*.yaml`, and `model-index` in the card."""

import re
from dataclasses import dataclass

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from .manifest import FULL, Manifest


EVAL_RESULTS_FOLDER = ".eval_results"
# Scores between 0 and 1, which leaderboards show as percentages; a loss or a time stays as it is.
_SHARES = re.compile(
    r"(^|_)(ndcg|map|mrr|recall|precision|hit_rate|accuracy|f1|ap|auc|spearman|pearson|v_measure)(?=_|@|$)"
)


@dataclass(frozen=True)
class LevelScore:
    """One measured score of one level.

    Args:
        level (`str`): Name of the level.
        metric (`str`), split (`str`): What was measured, and on which data.
        value (`float`): The score.
        low (`float`, *optional*), high (`float`, *optional*): Its 95% interval.
    """

    level: str
    metric: str
    split: str
    value: float
    low: float | None = None
    high: float | None = None


def repo_scores(manifest: Manifest) -> list[LevelScore]:
    """The table behind every form: all scores of the repo's own level, or of all levels if it holds them all."""
    levels = manifest.levels if manifest.this == FULL else [manifest.level(manifest.this)]
    return [
        LevelScore(level.name, score["metric"], score["split"], score["value"], score["low"], score["high"])
        for level in levels
        for score in level.quality
    ]


def model_index(scores: list[LevelScore], *, dataset_id: str | None, name: str, task: str) -> list[EvalResult]:
    """The scores as `eval_results` of `ModelCardData`, which writes them as `model-index`.

    Args:
        scores (`list[LevelScore]`): See [`repo_scores`].
        dataset_id (`str`, *optional*): Hub id of the data set, if it is there.
        name (`str`): Its name.
        task (`str`): Task id of the Hub, for example `"text-retrieval"`.
    """
    return [
        EvalResult(
            task_type=task,
            dataset_type=dataset_id or _slug(name),
            dataset_name=name,
            dataset_split=score.split,
            metric_type=score.metric,
            metric_name=f"{score.metric} of {score.level}",
            metric_value=round(float(score.value), 7),
        )
        for score in scores
    ]


def eval_result_files(scores: list[LevelScore], *, dataset_id: str, name: str) -> dict[str, str]:
    """The scores as files of `.eval_results/`.

    They follow MTEB's `push_eval_results`: percentages, and the task id `<name>_default_<split>`. That id does not say
    which metric, so a file has the main one, the first that was measured on its split. Each level is a variant of the
    model, and variants go in files of their own.

    Args:
        scores (`list[LevelScore]`): See [`repo_scores`].
        dataset_id (`str`): Hub id of the data set.
        name (`str`): Name of the benchmark, for example `"SciFact"`.

    Returns:
        `dict[str, str]`: Content by path in the repo.
    """
    files: dict[str, str] = {}
    for score in scores:
        path = f"{EVAL_RESULTS_FOLDER}/{_slug(name)}_{_slug(score.split)}_{_slug(score.level)}.yaml"
        if path in files:
            continue
        notes = f"{score.metric} of the level {score.level}"
        if score.low is not None and score.high is not None:
            notes += f", 95% interval {_shown(score, score.low):g} to {_shown(score, score.high):g}"
        task = f"{_slug(name)}_default_{score.split}"
        entry = EvalResultEntry(dataset_id, task, value=_shown(score, score.value), notes=notes)
        files[path] = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True)
    return files


def _shown(score: LevelScore, value: float) -> float:
    return round(float(value) * (100 if _SHARES.search(score.metric) else 1), 5)


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text)
