"""What a person sees of a run: a table of its stages, how far its model can be trusted, all of it as one JSON."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from botorch.cross_validation import efficient_loo_cv, ensemble_loo_cv

from ..data.files import write_beside
from .optimizer import Optimizer
from .trace_plot import trace_plot
from .trial import COMPLETE, FAILED, PENDING, Trial


SUMMARY_FILE, TRACE_FILE = "summary.json", "trace.png"
# Fewer observations say nothing about a model.
LEAST_OBSERVATIONS = 5


def stage_table(run: Optimizer) -> list[dict[str, Any]]:
    """A row a stage.

    Args:
        run ([`Optimizer`]): The run, finished or not.

    Returns:
        `list[dict]`: `stage`, `coordinates` (how many could be set), `trials`, `best` (of the stage alone),
        `best_so_far`, `failed`, `pending`, `duplicates` (proposals whose text was known: refused ones, and those that
        were evaluated again) and `seconds` (median of a suggestion; `None` where it is not known).
    """
    rows = []
    sign = 1 if run.maximize else -1
    for stage in sorted({trial.stage for trial in run.trials}):
        own = [trial for trial in run.trials if trial.stage == stage]
        values = [sign * trial.value for trial in own if trial.status == COMPLETE]
        earlier = [sign * t.value for t in run.trials if t.stage <= stage and t.status == COMPLETE]
        seconds = [trial.seconds for trial in own if trial.seconds is not None]
        rows.append(
            {
                "stage": stage,
                "coordinates": own[0].active_dim,
                "trials": len(own),
                "best": sign * max(values) if values else None,
                "best_so_far": sign * max(earlier) if earlier else None,
                "failed": sum(trial.status == FAILED for trial in own),
                "pending": sum(trial.status == PENDING for trial in own),
                "duplicates": sum(trial.refused for trial in own) + sum(_repeats(run.trials, own)),
                "seconds": float(np.median(seconds)) if seconds else None,
            }
        )
    return rows


def diagnostics(run: Optimizer) -> dict[str, Any]:
    """How far a run can be trusted.

    Args:
        run ([`Optimizer`]): The run, finished or not.

    Returns:
        `dict`: `leave_one_out`, the fit of a model of all observations to each from the others (`None` where there
        are too few): `model`, `observations`, `rmse` (root mean squared error) and `spread` (standard deviation of
        the values, which the error is to be compared with), `correlation`, and `coverage` (share of the values inside
        their 95% intervals). The hyper-parameters are not fitted anew each time, so it is a little too good. Then
        rates of all trials: `boundary_rate` (coordinates that were set and lie on the edge of the box),
        `duplicate_rate` (proposals whose text was known), `failure_rate`.
    """
    told = [trial for trial in run.trials if trial.status != PENDING]
    refused = sum(trial.refused for trial in run.trials)
    edges = [np.abs(trial.coordinates[: trial.active_dim]) >= run.space.bound - 1e-6 for trial in run.trials]
    repeated = refused + sum(_repeats(run.trials, run.trials))
    return {
        "leave_one_out": _leave_one_out(run),
        "boundary_rate": float(np.concatenate(edges).mean()) if edges else 0.0,
        "duplicate_rate": repeated / max(1, len(run.trials) + refused),
        "failure_rate": sum(trial.status == FAILED for trial in told) / max(1, len(told)),
    }


def summary(run: Optimizer) -> dict[str, Any]:
    """All of a run but its arrays, as JSON has it.

    Args:
        run ([`Optimizer`]): The run, finished or not.

    Returns:
        `dict`: `settings`, `trials` (told), `planned`, `best` (the record of the best trial, `None` without one),
        `best_values` (after each trial), `stages` ([`stage_table`]) and `diagnostics`.
    """
    return {
        "settings": run.settings(),
        "trials": sum(trial.status != PENDING for trial in run.trials),
        "planned": run.planned,
        "best": None if run.best is None else run.best.record(),
        "best_values": [None if math.isnan(value) else value for value in run.best_values()],
        "stages": stage_table(run),
        "diagnostics": diagnostics(run),
    }


def save_report(
    run: Optimizer, folder: str | Path | None = None, about: dict[str, str] | None = None
) -> dict[str, Any]:
    """Writes `summary.json` and `trace.png`.

    Args:
        run ([`Optimizer`]): The run.
        folder (`str` or `Path`, *optional*): Where to; by default that of the run.
        about (`dict[str, str]`, *optional*): What else is to be told of it, such as its `objective`.

    Returns:
        `dict`: The [`summary`], with `about`.

    Raises:
        ValueError: If neither is given, or no trial has a value.
        OSError: If it cannot be written.
    """
    folder = run.folder if folder is None else Path(folder)
    if folder is None:
        raise ValueError("this run has no folder; give one for the report")
    trace_plot(run, folder / TRACE_FILE)
    found = {"about": about or {}, **summary(run)}
    with write_beside(folder / SUMMARY_FILE) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def _repeats(trials: list[Trial], own: list[Trial]) -> list[bool]:
    """Of each of `own`, whether an earlier one of all trials has its text."""
    first: dict[str, int] = {}
    for trial in trials:
        if trial.text is not None:
            first.setdefault(trial.text, trial.id)
    return [trial.text is not None and first[trial.text] != trial.id for trial in own]


def _leave_one_out(run: Optimizer) -> dict[str, Any] | None:
    known = run.completed
    values = torch.tensor([trial.value for trial in known], dtype=torch.float64)
    if len(known) < LEAST_OBSERVATIONS or values.std() == 0:
        return None
    # That of an optimiser without a model is one of points.
    kind, model = getattr(run, "surrogate", "rbf"), run.model()
    if kind == "saas":
        posterior = ensemble_loo_cv(model).posterior
        mean, variance = posterior.mixture_mean, posterior.mixture_variance
    else:
        posterior = efficient_loo_cv(model).posterior
        mean, variance = posterior.mean, posterior.variance
    mean, deviation = mean.detach().reshape(-1), variance.detach().reshape(-1).sqrt()
    error = mean - values
    correlation = float(np.corrcoef(mean.numpy(), values.numpy())[0, 1]) if mean.std() > 0 else 0.0
    return {
        "model": kind,
        "observations": len(known),
        "rmse": float(error.square().mean().sqrt()),
        "spread": float(values.std()),
        "correlation": correlation,
        "coverage": float((error.abs() <= 1.96 * deviation).double().mean()),
    }
