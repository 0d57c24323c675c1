"""The trade-off plot of a family."""

import os
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from ..data.files import write_beside
from .curve import Curve, with_baselines


# Okabe and Ito's palette: distinguishable under colour blindness.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def plot_curves(
    curves: Sequence[Curve],
    path: str | os.PathLike,
    *,
    title: str | None = None,
    emphasised: Sequence[str] | None = None,
    dpi: int = 150,
) -> Path:
    """Quality against width (log scale), a line a system, with 95% bands where they are known.

    Args:
        curves (`Sequence[Curve]`): Systems on one split, under one metric. Their `baselines` are drawn too.
        path (`str` or `os.PathLike`): PNG file to write.
        title (`str`, *optional*): By default the metric and the split.
        emphasised (`Sequence[str]`, *optional*): Systems drawn with solid thick lines and bands; by default those that
            are not among the `baselines` of another.
        dpi (`int`, *optional*, defaults to 150): Resolution.

    Returns:
        `Path`: The file.

    Raises:
        ValueError: If there is no curve, or their metrics or splits differ.
    """
    shown = with_baselines(curves)
    if emphasised is None:
        emphasised = [curve.system for curve in curves]
    # Objects only, never pyplot: plotting in a server or a test leaves no global state behind.
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, curve in enumerate(shown):
        colour = _COLOURS[number % len(_COLOURS)]
        strong = curve.system in emphasised
        axes.plot(
            curve.dims,
            curve.qualities,
            color=colour,
            label=curve.system,
            marker="o",
            markersize=5 if strong else 3,
            linewidth=2 if strong else 1,
            linestyle="-" if strong else "--",
            zorder=3 if strong else 2,
        )
        if strong and all(point.low is not None for point in curve.points):
            axes.fill_between(
                curve.dims,
                [point.low for point in curve.points],
                [point.high for point in curve.points],
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
    dims = sorted({dim for curve in shown for dim in curve.dims})
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(dims))
    axes.xaxis.set_major_formatter(FixedFormatter([str(dim) for dim in dims]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", labelrotation=45 if len(dims) > 8 else 0)
    axes.set_xlabel("dimensions")
    axes.set_ylabel(shown[0].metric)
    axes.set_title(f"{shown[0].metric}, {shown[0].split}" if title is None else title)
    axes.grid(alpha=0.3)
    axes.legend()
    path = Path(path)
    with write_beside(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
    return path
