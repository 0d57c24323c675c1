"""Pairs of texts from the files that people have."""

from collections.abc import Iterator
from pathlib import Path

from .lines import read_lines
from .texts import DELIMITERS, file_kind, table_rows, text_of_line


def iter_pairs(path: str | Path, first: str, second: str) -> Iterator[tuple[str, str]]:
    """Pairs of texts of a file, one after the other.

    Args:
        path (`str` or `Path`):
            A `.jsonl` file of objects or a `.csv` or `.tsv` table, any of them also as `.gz`.
        first, second (`str`):
            Fields of the objects or columns of the table that hold the texts: names in its first row, or numbers,
            counted from 0, of a table that has no such row.

    Yields:
        `tuple[str, str]`: the pairs, in order; those of a table with an empty text are left out.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is of another kind, or a line cannot be read or lacks a text.
    """
    path = Path(path)
    kind = file_kind(path, (".jsonl", *DELIMITERS))
    if kind in DELIMITERS:
        yield from ((one, other) for one, other in table_rows(path, DELIMITERS[kind], [first, second]))
        return
    for number, line in read_lines(path):
        if not line.lstrip().startswith("{"):
            raise ValueError(f"line {number} of {path} is no JSON object with the fields {first!r} and {second!r}")
        yield text_of_line(path, number, line, first), text_of_line(path, number, line, second)
