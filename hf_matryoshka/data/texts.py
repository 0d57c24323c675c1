"""Texts from the files that people have."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from .beir import load_beir
from .lines import read_lines


DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read_texts(path: str | Path, field: str = "text") -> list[str]:
    """Texts of a file or folder, all in memory; [`iter_texts`] says which files, and what it raises.

    Raises:
        ValueError: also if there are none.
    """
    texts = list(iter_texts(path, field))
    if not texts:
        raise ValueError(f"{path} holds no text")
    return texts


def iter_texts(path: str | Path, field: str = "text") -> Iterator[str]:
    """Texts of a file or folder, one after the other, so that a file may be larger than the memory.

    Args:
        path (`str` or `Path`):
            A `.txt` file with one text a line (empty lines are skipped), a `.jsonl` file of objects or strings, a
            `.csv` or `.tsv` table, any of them also as `.gz`, or a folder in BEIR format, whose documents are read.
        field (`str`, *optional*, defaults to `"text"`):
            Field of the objects that holds the text, or the column of the table: its name in the first row, or its
            number, counted from 0, in a table that has no such row.

    Yields:
        `str`: the texts, in order.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is of another kind, or a line cannot be read or has no text.
    """
    path = Path(path)
    if path.is_dir():
        yield from load_beir(path).documents()
        return
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; give a .txt, .jsonl, .csv or .tsv file, or a folder in BEIR format"
        )
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix not in (".txt", ".jsonl", *DELIMITERS):
        raise ValueError(f"{path.name} is neither .txt, .jsonl, .csv nor .tsv, nor a folder in BEIR format")
    if suffix in DELIMITERS:
        yield from _column(path, DELIMITERS[suffix], field)
        return
    for number, line in read_lines(path):
        yield line if suffix == ".txt" else _text(path, number, line, field)


def with_fields(paths: Sequence[str | Path], fields: Sequence[str] | None) -> list[tuple[Path, str]]:
    """Each file with the field that holds its texts.

    Args:
        paths (`Sequence`):
            The files.
        fields (`Sequence[str]`, *optional*):
            One field for all files, or one a file; `"text"` by default.

    Raises:
        ValueError: if there are neither one nor as many fields as files.
    """
    names = list(fields or ["text"])
    if len(names) not in (1, len(paths)):
        raise ValueError(f"there are {len(names)} names of fields for {len(paths)} files; give one, or one a file")
    names = names * len(paths) if len(names) == 1 else names
    return [(Path(path), name) for path, name in zip(paths, names, strict=True)]


def _column(path: Path, delimiter: str, field: str) -> Iterator[str]:
    rows = csv.reader((f"{line}\n" for _, line in read_lines(path)), delimiter=delimiter)
    try:
        column = None if not field.isdecimal() else int(field)
        for row in rows:
            if column is None:
                if field not in row:
                    raise ValueError(
                        f"{path} has no column {field!r} in its first row ({', '.join(row[:8])}); of a table without "
                        "names give the number of the column, from 0"
                    )
                column = row.index(field)
            elif column >= len(row):
                raise ValueError(f"line {rows.line_num} of {path} has {len(row)} columns, so no column {column}")
            elif row[column].strip():
                yield row[column]
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num} of {path} cannot be read as a table ({error})") from error


def _text(path: Path, number: int, line: str, field: str) -> str:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        raise ValueError(f"line {number} of {path} is no JSON") from None
    text = record.get(field) if isinstance(record, dict) else record
    if not isinstance(text, str):
        raise ValueError(f"line {number} of {path} has no text in the field {field!r}")
    return text
