"""Text table of systems against widths or levels."""

from collections.abc import Collection, Sequence
from typing import Any

from .baselines import BASELINES
from .curve import Curve, LevelPoint, with_baselines


MARK = "*"


def format_table(
    curves: Sequence[Curve],
    *,
    baselines: Collection[str] = tuple(BASELINES),
    intervals: bool = True,
    digits: int = 3,
) -> str:
    """Systems as rows, widths as columns (levels, where a curve has no widths), each value with its 95% interval.

    The best value of a column gets a star only if it beats the best baseline (the runner-up, when a baseline leads) by
    a difference whose 95% paired bootstrap interval excludes 0. A column without a star has no proven winner.

    Args:
        curves (`Sequence[Curve]`): Systems on one split, under one metric. Their `baselines` are listed too.
        baselines (`Collection[str]`, *optional*): Names of the systems that count as baselines.
        intervals (`bool`, *optional*, defaults to `True`): Whether to print the intervals.
        digits (`int`, *optional*, defaults to 3): Decimals.

    Returns:
        `str`: The table, under a line that names metric and split.

    Raises:
        ValueError: If there is no curve, or their metrics or splits differ.
    """
    shown = with_baselines(curves)
    by_dim = all(None not in curve.dims for curve in shown)
    points = {curve.system: {point.dim if by_dim else point.level: point for point in curve.points} for curve in shown}
    columns: list[Any] = list(dict.fromkeys(column for row in points.values() for column in row))
    if by_dim:
        columns.sort()
    winners = {
        column: _winner({name: row[column] for name, row in points.items() if column in row}, baselines)
        for column in columns
    }

    def cell(name: str, column: int | str | None) -> str:
        point = points[name].get(column)
        if point is None:
            return "-"
        text = _number(point.quality, digits) + (MARK if winners[column] == name else "")
        if intervals and point.low is not None and point.high is not None:
            text += f" [{_number(point.low, digits)}, {_number(point.high, digits)}]"
        return text

    header = ["system", *map(str, columns)]
    body = [[curve.system, *(cell(curve.system, column) for column in columns)] for curve in shown]
    notes = []
    if intervals and any(point.low is not None for row in points.values() for point in row.values()):
        notes.append("[95% bootstrap interval]")
    if any(winners.values()):
        notes.append(f"{MARK} best, and its paired 95% interval against the best other baseline excludes 0")
    title = f"{shown[0].metric}, split {shown[0].split}, by {'dimensions' if by_dim else 'level'}"
    return "\n".join([title, format_rows(header, body), *notes])


def format_rows(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Columns of equal width: the header, a rule, and the rows."""
    widths = [max(len(row[column]) for row in [header, *body]) for column in range(len(header))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, ["-" * width for width in widths], *body]
    )


def _number(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("0.") else text.replace("-0.", "-.", 1) if text.startswith("-0.") else text


def _winner(column: dict[str, LevelPoint], baselines: Collection[str]) -> str | None:
    best = max(column, key=lambda name: column[name].quality)
    others = [name for name in column if name in baselines and name != best]
    if not others:
        return None
    rival = column[max(others, key=lambda name: column[name].quality)]
    _, low, _ = column[best].minus(rival)
    return best if low is not None and low > 0 else None
