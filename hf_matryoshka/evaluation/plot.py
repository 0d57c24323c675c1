"""The trade-off plot of a family."""

import os
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from ..data.files import write_beside
from .curve import Curve, with_baselines
from .metrics import pareto_envelope


# Okabe and Ito's palette: distinguishable under colour blindness.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_COST_NAMES = {"macs": "MACs", "flops_per_token": "FLOPs per token", "latency_ms": "latency (ms)"}
# More names than this hide the points.
_MAX_NAMES = 12


def plot_curves(
    curves: Sequence[Curve],
    path: str | os.PathLike,
    *,
    cost: str | None = None,
    title: str | None = None,
    emphasised: Sequence[str] | None = None,
    dpi: int = 150,
) -> Path:
    """Quality against width or a cost (log scale), a line a system, with 95% bands where they are known.

    Against a cost the line goes through the levels that no cheaper one equals; the others are points beside it.

    Args:
        curves (`Sequence[Curve]`): Systems on one split, under one metric. Their `baselines` are drawn too.
        path (`str` or `os.PathLike`): PNG file to write.
        cost (`str`, *optional*): The horizontal axis, such as `"macs"` or `"latency_ms"`; by default the width, and
            `"macs"` where levels have none.
        title (`str`, *optional*): By default the metric and the split.
        emphasised (`Sequence[str]`, *optional*): Systems drawn with solid thick lines and bands; by default those that
            are not among the `baselines` of another.
        dpi (`int`, *optional*, defaults to 150): Resolution.

    Returns:
        `Path`: The file.

    Raises:
        ValueError: If there is no curve, their metrics or splits differ, or a level lacks the cost.
    """
    shown = with_baselines(curves)
    if emphasised is None:
        emphasised = [curve.system for curve in curves]
    if cost is None and any(None in curve.dims for curve in shown):
        cost = "macs"
    # Objects only, never pyplot: plotting in a server or a test leaves no global state behind.
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, curve in enumerate(shown):
        strong = curve.system in emphasised
        style = {
            "color": _COLOURS[number % len(_COLOURS)],
            "marker": "o",
            "markersize": 5 if strong else 3,
            "linewidth": 2 if strong else 1,
            "linestyle": "-" if strong else "--",
            "zorder": 3 if strong else 2,
        }
        band = strong and all(point.low is not None for point in curve.points)
        if cost is None:
            _draw_widths(axes, curve, style, band)
        else:
            _draw_costs(axes, curve, cost, style, band, names=curve is shown[0])
    if cost is None:
        _label_widths(axes, shown)
    else:
        axes.set_xscale("log")
        axes.margins(x=0.12)  # room for the name of the last level
        axes.set_xlabel(_COST_NAMES.get(cost, cost.replace("_", " ")))
    axes.set_ylabel(shown[0].metric)
    axes.set_title(f"{shown[0].metric}, {shown[0].split}" if title is None else title)
    axes.grid(alpha=0.3)
    axes.legend()
    path = Path(path)
    with write_beside(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
    return path


def _draw_widths(axes: Axes, curve: Curve, style: dict, band: bool) -> None:
    axes.plot(_widths(curve), curve.qualities, label=curve.system, **style)
    if band:
        low, high = _intervals(curve)
        axes.fill_between(_widths(curve), low, high, color=style["color"], alpha=0.15, linewidth=0)


def _widths(curve: Curve) -> list[int]:
    """Of a curve whose levels all have one."""
    return [point.dim for point in curve.points if point.dim is not None]


def _intervals(curve: Curve) -> tuple[list[float], list[float]]:
    """The lower and the upper ends, of a curve whose points all have them."""
    found = [(point.low, point.high) for point in curve.points]
    return [low for low, _ in found if low is not None], [high for _, high in found if high is not None]


def _label_widths(axes: Axes, shown: Sequence[Curve]) -> None:
    dims = sorted({dim for curve in shown for dim in _widths(curve)})
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(dims))
    axes.xaxis.set_major_formatter(FixedFormatter([str(dim) for dim in dims]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", labelrotation=45 if len(dims) > 8 else 0)
    axes.set_xlabel("dimensions")


def _draw_costs(axes: Axes, curve: Curve, cost: str, style: dict, band: bool, names: bool) -> None:
    costs, qualities = curve.costs(cost), curve.qualities
    best = pareto_envelope(costs, qualities)
    axes.plot([costs[index] for index in best], [qualities[index] for index in best], label=curve.system, **style)
    axes.plot(costs, qualities, **{**style, "linestyle": "none"})
    if band:
        # Bars and no band: levels beside the line have intervals of their own.
        # Where all rows are alike, rounding may put an end on the wrong side.
        ends = [
            [max(0.0, quality - low) for quality, low in zip(qualities, _intervals(curve)[0], strict=True)],
            [max(0.0, high - quality) for quality, high in zip(qualities, _intervals(curve)[1], strict=True)],
        ]
        axes.errorbar(costs, qualities, yerr=ends, fmt="none", ecolor=style["color"], capsize=3, alpha=0.6)
    if names and len(curve.points) <= _MAX_NAMES:
        for level, x, y in zip(curve.levels, costs, qualities, strict=True):
            axes.annotate(level, (x, y), xytext=(4, -9), textcoords="offset points", fontsize=7)
