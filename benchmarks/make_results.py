"""Writes `benchmarks/RESULTS.md`, all committed rows as tables.

    python benchmarks/make_results.py

A section for each file of `benchmarks/results/`, under the name of the file: what its script measures, command, date,
machine and versions, and a table for each metric.
"""

import argparse
import ast
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from result_rows import OWN, Measurement, measurements


FOLDER = Path(__file__).parent
# Reports of commands that no script here calls.
ABOUT = {
    "delta_ablations": "Each part of the Delta training on or off, over seeds: `hf-matryoshka ablate`.",
    "quickstart": "What `make quickstart` leaves: an adaptor for all-MiniLM-L6-v2 on the documentation of the Python "
    "packages installed beside it.",
}
# Columns of a table at most, and the share of its cells that have a number at least.
WIDEST, FILLED = 12, 0.4
# What a line above a table leaves out.
UNSAID = {("seeds", 1), ("level", "-"), ("split", "-")}
INTRODUCTION = """\
# Results

Made by `python benchmarks/make_results.py` from the files in `benchmarks/results/`; do not edit. A section holds the
rows of one file, a table for each metric: systems as rows, levels or splits as columns. A value is a mean over as many
seeds as it says, and of one seed where it says nothing. In brackets is the interval of a row, where it has one: 95%,
or the lowest and the highest of repeated times, as the script says. Rows of one seed each are shown as their mean with
its 95% t-interval. Each script says at its beginning what its systems and metrics are and how options were chosen.
Versions are those of the day on which it ran. Systems that are not ours stay in the tables where they are better.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=FOLDER / "RESULTS.md", type=Path)
    arguments = parser.parse_args()
    arguments.out.write_text(page(sorted((FOLDER / "results").glob("*.json"))), encoding="utf-8")
    print(arguments.out)


def page(files: Iterable[Path]) -> str:
    """The whole page."""
    reports = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
    body = [[f"[{name}](#{name})", about(name, report), report["date"]] for name, report in reports.items()]
    parts = [INTRODUCTION, table(["file", "what it measures", "date"], body)]
    return "\n".join([*parts, *(section(name, report) for name, report in reports.items())])


def section(name: str, report: dict[str, Any]) -> str:
    """A report under the name of its file.

    Raises:
        ValueError: If two of its rows cannot be told apart.
    """
    machine = report["machine"]
    ran = report["command"]
    ran = f"python benchmarks/{ran}" if script(name, report) and ran.split()[0].endswith(".py") else ran
    versions = ", ".join(f"{package} {version}" for package, version in report["versions"].items())
    found = [*measurements(report["rows"]), *costs(report)]
    # What is the same in all rows that have it.
    settings = named(report) | named_everywhere(report["rows"])
    settings |= {one.metric: one.value for one in found if not one.place}
    lines = [f"\n## {name}\n", f"{about(name, report)} Rows: [{name}.json](results/{name}.json).\n"]
    lines += [f"- `{ran}`, {report['date']}, {machine['cores']} cores ({machine['cpu']}), {machine['device']}"]
    lines += [f"- {versions}"]
    if settings:
        lines += ["- " + "; ".join(f"{key}: {shown(value)}" for key, value in settings.items())]
    for members in tables(one for one in found if not one.beside):
        lines += [f"\n### {name}: {titles(members)}\n", pivot(members)]
    others = list(tables(one for one in found if one.beside and one.place))
    if others:
        lines.append('\n<details markdown="1"><summary>Beside these values, the rows hold</summary>')
        for members in others:
            lines += [f"\n#### {name}, beside: {titles(members)}\n", pivot(members)]
        lines.append("\n</details>")
    return "\n".join(lines)


def costs(report: dict[str, Any]) -> list[Measurement]:
    """What each level costs, where a report says so once for all systems."""
    return [
        Measurement(key, {"level": level}, value, beside=True)
        for level, numbers in report.get("costs", {}).items()
        for key, value in numbers.items()
    ]


def named(values: dict[str, Any]) -> dict[str, Any]:
    """Those that are one word or number."""
    plain = {key: value for key, value in values.items() if isinstance(value, str | int | float)}
    return {key: value for key, value in plain.items() if key not in {*OWN, "name", "date", "command"}}


def named_everywhere(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    words = {key: value for key, value in named(rows[0]).items() if isinstance(value, str)}
    return {key: value for key, value in words.items() if all(row.get(key) == value for row in rows)}


def tables(found: Iterable[Measurement]) -> Iterator[list[Measurement]]:
    """The measurements of a metric; metrics of one column each and the same rows share a table."""
    by_metric: dict[str, list[Measurement]] = {}
    for one in found:
        by_metric.setdefault(one.metric, []).append(one)
    by_rows: dict[Any, list[Measurement]] = {}
    for metric, members in by_metric.items():
        rows = tuple((*one.place.items(), one.seeds) for one in members)
        by_rows.setdefault(metric if across(members) else rows, []).extend(members)
    yield from by_rows.values()


def across(members: Sequence[Measurement]) -> str | None:
    """What the columns of a metric are: levels, or splits where there are more; nothing if few cells had a number."""
    values = {axis: {one.place.get(axis) for one in members} for axis in ("level", "split")}
    axis = max(values, key=lambda key: len(values[key]))
    rows = {(*((key, value) for key, value in one.place.items() if key != axis), one.seeds) for one in members}
    enough = len(members) >= FILLED * len(rows) * len(values[axis])
    return axis if 1 < len(values[axis]) <= WIDEST and enough else None


def titles(members: Iterable[Measurement]) -> str:
    return ", ".join(dict.fromkeys(one.metric for one in members))


def about(name: str, report: dict[str, Any]) -> str:
    """The first paragraph of the docstring of the script, and the script's name."""
    path = script(name, report)
    if path is None:
        return ABOUT[name]
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).split("\n\n")[0]
    return f"{' '.join(text.split())} `benchmarks/{path.name}`."


def script(name: str, report: dict[str, Any]) -> Path | None:
    paths = [FOLDER / report["command"].split()[0], FOLDER / f"{name}.py"]
    return next((path for path in paths if path.suffix == ".py" and path.is_file()), None)


def pivot(members: Sequence[Measurement]) -> str:
    """A table: levels, splits or metrics as columns; what else differs as rows; what does not in a line above it."""
    places = [{"metric": one.metric, **one.place, "seeds": one.seeds} for one in members]
    values = {key: list(dict.fromkeys(place.get(key) for place in places)) for place in places for key in place}
    axis = "metric" if len(values["metric"]) > 1 else across(members)
    index = [key for key in values if key not in (axis, "seeds") and (key == "system" or len(values[key]) > 1)]
    index += ["seeds"] * (len(values["seeds"]) > 1)
    cells: dict[tuple, dict[Any, str]] = {}
    for place, one in zip(places, members, strict=True):
        cells.setdefault(tuple(place.get(key, "") for key in index), {})[place.get(axis)] = cell(one)
    columns = [None] if axis is None else values[axis]
    header = [*index, *("value" if column is None else str(column) for column in columns)]
    body = [[*map(str, row), *(found.get(column, "") for column in columns)] for row, found in cells.items()]
    same = {key: found[0] for key, found in values.items() if len(found) == 1 and key not in (*index, "metric", axis)}
    said = ", ".join(f"{key} {value}" for key, value in same.items() if (key, value) not in UNSAID)
    return f"{said}\n\n" * bool(said) + table(header, body)


def table(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(text.replace('|', chr(92) + '|') for text in line)} |" for line in lines)


def cell(one: Measurement) -> str:
    """The value, with its interval to as many decimals."""
    if one.low is None:
        return shown(one.value)
    size = max(abs(number) for number in (one.value, one.low, one.high))
    value, low, high = (shown(float(number), size) for number in (one.value, one.low, one.high))
    return value if value == low == high else f"{value} [{low}, {high}]"


def shown(value: Any, size: float | None = None) -> str:
    """A number with four digits, or with as many decimals as one of another size; a count whole."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value) if size is None else size
    if size < 1e-3:
        return f"{value:.2g}"
    digits = max(0, 3 - math.floor(math.log10(size)))
    # Without a minus before a zero.
    return f"{round(value, digits) + 0.0:,.{digits}f}"


if __name__ == "__main__":
    main()
