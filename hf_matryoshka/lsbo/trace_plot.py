"""The picture of a run: every value and the best one so far, trial by trial."""

import math
import os
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..data.files import write_beside
from .optimizer import Optimizer
from .trial import COMPLETE, FAILED, Trial


BEST, VALUE, FAILURE = "#0072B2", "#999999", "#D55E00"


def trace_plot(
    run: Optimizer, path: str | os.PathLike, *, optimum: float | None = None, title: str | None = None, dpi: int = 150
) -> Path:
    """Best value by trial, the stages marked; with `optimum` the simple regret on a log scale.

    Args:
        run ([`Optimizer`]): The run, finished or not.
        path (`str` or `os.PathLike`): PNG file to write.
        optimum (`float`, *optional*): The best value that there is.
        title (`str`, *optional*): By default the name of the optimiser and its best value.
        dpi (`int`, *optional*, defaults to 150): Resolution.

    Returns:
        `Path`: The file.

    Raises:
        ValueError: If no trial has a value yet.
        OSError: If it cannot be written.
    """
    if run.best is None:
        raise ValueError(f"none of {len(run.trials)} trials has a value, so there is nothing to draw")

    def shown(value: float) -> float:
        return value if optimum is None else abs(optimum - value)

    # Objects only, never pyplot: plotting in a server or a test leaves no global state behind.
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    known = [trial for trial in run.trials if trial.status == COMPLETE]
    axes.plot(
        [trial.id + 1 for trial in known],
        [shown(trial.value) for trial in known],
        color=VALUE,
        marker=".",
        linestyle="none",
        alpha=0.7,
        label="a trial",
    )
    found = [(number + 1, shown(best)) for number, best in enumerate(run.best_values()) if not math.isnan(best)]
    axes.step(*zip(*found, strict=True), where="post", color=BEST, linewidth=2, label="best so far")
    if optimum is not None:
        axes.set_yscale("log")
    failed = [trial.id + 1 for trial in run.trials if trial.status == FAILED]
    if failed:
        # At the lower edge, whatever the values are.
        transform = axes.get_xaxis_transform()
        axes.plot(failed, [0.02] * len(failed), "x", color=FAILURE, transform=transform, label="failed")
    several = _mark_stages(axes, run)
    axes.set_xlabel("trial (above: coordinates that the stage sets)" if several else "trial")
    axes.set_xlim(0, len(run.trials) + 1)
    axes.set_ylabel("value" if optimum is None else "simple regret")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    better = "larger" if run.maximize else "smaller"
    axes.set_title(
        title or f"{run.name}: {run.best.value:.4g} after {len(run.trials)} trials ({better} is better)", pad=18
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    path = Path(path)
    with write_beside(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
    return path


def _mark_stages(axes: Axes, run: Optimizer) -> bool:
    """A line where a stage begins, and above it how many coordinates it sets; whether there are several stages."""
    firsts: dict[int, Trial] = {}
    for trial in run.trials:
        firsts.setdefault(trial.stage, trial)
    if len(firsts) < 2:
        return False
    starts = [trial.id + 0.5 for trial in firsts.values()]
    ends = [*starts[1:], len(run.trials) + 0.5]
    for start, end, trial in zip(starts, ends, firsts.values(), strict=True):
        if trial.id:
            axes.axvline(start, color="black", linewidth=0.8, linestyle=":")
        axes.annotate(
            str(trial.active_dim),
            ((start + end) / 2, 1),
            xycoords=axes.get_xaxis_transform(),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    return True
