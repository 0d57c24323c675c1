"""The numbers in the tables and sentences of README.md and docs/measured/, and the rows that they may come from."""

import functools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from result_rows import Measurement, measurements


ROOT = Path(__file__).parents[2]
# A block begins at a heading, or at a paragraph with a bold beginning.
BLOCK = re.compile(r"^(?=#|\*\*[A-Z])", re.MULTILINE)
# A link to rows: to their file, or to its section of RESULTS.md or a table there.
SOURCE = re.compile(r"\((?:\.\./)*benchmarks/(?:results/(\w+)\.json|RESULTS\.md#(\w+)[\w-]*)\)")
RULE = re.compile(r"\|(?: *:?-+:? *\|)+")
# As a cell has them: 0.34, .410, -0.066, 33.0%, 1,120,835, 91.5 MB, +0.06 [-0.08, +0.20]; or several of these.
NUMBER = r"[+-]?(?:\d[\d,]*)?\.?\d+"
ITEM = re.compile(rf"({NUMBER})(?: ?(%|MB|GB))?(?: \[({NUMBER}), ({NUMBER})\])?")
CELL = re.compile(rf"{ITEM.pattern}(?:, {ITEM.pattern})*".replace("(" + NUMBER, "(?:" + NUMBER).replace("(%", "(?:%"))
# A number with decimals in a sentence, not one of a name, version or address.
DECIMAL = re.compile(r"(?<![\w./-])[+-]?\d*\.\d+(?: ?(?:%|MB|GB))?(?![\w./]*\w)")
# What is no sentence: code, the target of a link.
NO_SENTENCE = re.compile(r"`[^`]*`|\]\([^)]*\)")
# What numbers of rows are multiplied with: shares in percent or points, seconds in milliseconds, bytes in MB or GB.
SCALES = {"": (1, 100, 1000), "%": (100,), "MB": (1, 1e-6), "GB": (1, 1e-9)}
# Half of the last digit.
HALF = 0.5


@dataclass
class Table:
    """A table of a page.

    Args:
        line (`int`): That of its header.
        sources (`list[str]`): The files that the block around it links to.
        header (`list[str]`): Cells.
        rows (`list[list[str]]`): Cells, without bold marks and with plain minus signs.
    """

    line: int
    sources: list[str]
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)

    @property
    def numbers(self) -> dict[tuple[int, int], list[re.Match]]:
        """The numbers of each cell, by row and column, that has nothing else; not in the first column, of names."""
        return {
            (row, column): list(ITEM.finditer(text))
            for row, cells in enumerate(self.rows)
            for column, text in enumerate(cells)
            if column and CELL.fullmatch(text)
        }


def read_tables(text: str) -> list[Table]:
    """The tables of a page."""
    found, line = [], 1
    for block in BLOCK.split(text):
        sources = list(dict.fromkeys(first or second for first, second in SOURCE.findall(block)))
        lines = block.split("\n")
        for number, one in enumerate(lines):
            if RULE.fullmatch(one):
                table = Table(line + number - 1, sources, cells_of(lines[number - 1]))
                for row in lines[number + 1 :]:
                    if not row.startswith("|"):
                        break
                    table.rows.append(cells_of(row))
                found.append(table)
        line += len(lines) - 1
    return found


def cells_of(line: str) -> list[str]:
    return [cell.strip().strip("*").replace("−", "-") for cell in line.strip().strip("|").split("|")]


@functools.cache
def rows_of(source: str) -> list[Measurement]:
    """The numbers that a section of RESULTS.md shows."""
    report = json.loads((ROOT / "benchmarks" / "results" / f"{source}.json").read_text(encoding="utf-8"))
    return measurements(report["rows"])


def unmatched(table: Table, elsewhere: dict[str, str]) -> list[str]:
    """Numbers that are in no row of the table's sources.

    The numbers of a row, or those of a column, must be of one metric or of one system. So one that is somewhere in the
    rows by chance does not count.

    Args:
        table ([`Table`]): One of [`read_tables`].
        elsewhere (`dict[str, str]`): First cells of rows and heads of columns that have another source.

    Returns:
        `list[str]`: `line: number (row, column)`.
    """
    places = {
        (row, column): [origins(item, table.sources) for item in items]
        for (row, column), items in table.numbers.items()
        if table.rows[row][0] not in elsewhere and table.header[column] not in elsewhere
    }
    along: dict[tuple[str, int], set[tuple[str, str, str]]] = {}
    for place, found in places.items():
        for line in zip(("row", "column"), place, strict=True):
            for origin in filter(None, found):  # A number that has none is reported for itself.
                along[line] = along.get(line, origin) & origin
    missing = []
    for (row, column), found in places.items():
        shared = along.get(("row", row), set()) | along.get(("column", column), set())
        for item, origin in zip(table.numbers[row, column], found, strict=True):
            if not origin & shared:
                where = f"{table.rows[row][0] or 'first row'}, {table.header[column] or 'first column'}"
                missing.append(f"{table.line + 2 + row}: {item[0]} ({where})")
    return missing


def unmatched_in_sentences(text: str) -> list[str]:
    """Numbers with decimals in sentences that are neither a value nor an end of an interval in the rows beside them.

    Args:
        text (`str`): A page.

    Returns:
        `list[str]`: `line: number`.
    """
    missing, line = [], 1
    for block in BLOCK.split(text):
        sources = list(dict.fromkeys(first or second for first, second in SOURCE.findall(block)))
        in_code = False
        for number, one in enumerate(block.split("\n"), line):
            in_code ^= one.startswith("```")
            if in_code or one.startswith(("|", "```")):
                continue
            for found in DECIMAL.findall(NO_SENTENCE.sub("", one).replace("−", "-")):
                if not in_rows(found, sources):
                    missing.append(f"{number}: {found}")
        line += block.count("\n")
    return missing


def in_rows(item: str, sources: list[str]) -> bool:
    value, unit = re.fullmatch(rf"({NUMBER})(?: ?(%|MB|GB))?", item).groups()
    numbers = (end for source in sources for one in rows_of(source) for end in (one.value, one.low, one.high))
    scales = SCALES[unit or ""]
    # A difference may be told by its size alone.
    return any(
        rounds_to(sign * number * scale, value)
        for number in numbers
        if number is not None
        for scale in scales
        for sign in (1, -1)
    )


def origins(item: re.Match, sources: list[str]) -> set[tuple[str, str, str]]:
    """Metrics and systems whose rows have a number."""
    number, unit, low, high = item.groups()
    found = set()
    for source in sources:
        for one in rows_of(source):
            for scale in SCALES[unit or ""]:
                same = rounds_to(one.value * scale, number)
                if low is not None:
                    same &= (
                        one.low is not None and rounds_to(one.low * scale, low) and rounds_to(one.high * scale, high)
                    )
                if same or number == str(one.seeds):
                    found |= {(source, "metric", one.metric), (source, "system", str(one.place.get("system")))}
    return found


def rounds_to(value: float, number: str) -> bool:
    digits = len(number.partition(".")[2])
    return abs(value - float(number.replace(",", ""))) <= HALF * 10**-digits + 1e-12
