"""Texts from the files that people have."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from .beir import load_beir
from .lines import read_lines


DELIMITERS = {".csv": ",", ".tsv": "\t"}
# Half of a character beyond 16 bits: JSON can write one alone, UTF-8 cannot.
SURROGATE = re.compile("[\ud800-\udfff]")


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
    kind = file_kind(path, (".txt", ".jsonl", *DELIMITERS), folders=True)
    if kind in DELIMITERS:
        yield from (text for (text,) in table_rows(path, DELIMITERS[kind], [field]))
        return
    for number, line in read_lines(path):
        yield line if kind == ".txt" else text_of_line(path, number, line, field)


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


def file_kind(path: Path, kinds: Sequence[str], folders: bool = False) -> str:
    """Suffix of a file, without `.gz`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is none of `kinds`; with `folders` the message says that a folder in BEIR format would do.
    """
    first = ", ".join(kinds[:-1])
    if not path.is_file():
        others = ", or a folder in BEIR format" if folders else ""
        raise FileNotFoundError(f"{path} does not exist; give a {first} or {kinds[-1]} file{others}")
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if kind not in kinds:
        others = ", nor a folder in BEIR format" if folders else ""
        raise ValueError(f"{path.name} is neither {first} nor {kinds[-1]}{others}")
    return kind


def table_rows(path: Path, delimiter: str, fields: Sequence[str]) -> Iterator[list[str]]:
    """Texts of some columns of a table, row by row, without the rows in which one is empty.

    Args:
        path (`Path`):
            The table, also as `.gz`.
        delimiter (`str`):
            What is between its columns.
        fields (`Sequence[str]`):
            The columns, by their names in the first row, or all by their numbers, counted from 0.

    Raises:
        ValueError: if a column does not exist, or a line cannot be read.
    """
    rows = csv.reader((f"{line}\n" for _, line in read_lines(path)), delimiter=delimiter)
    columns = [int(field) for field in fields] if all(field.isdecimal() for field in fields) else None
    try:
        for row in rows:
            if columns is None:
                for field in fields:
                    if field not in row:
                        raise ValueError(
                            f"{path} has no column {field!r} in its first row ({', '.join(row[:8])}); of a table "
                            "without names give the number of the column, from 0"
                        )
                columns = [row.index(field) for field in fields]
            elif max(columns) >= len(row):
                raise ValueError(f"line {rows.line_num} of {path} has {len(row)} columns, so no column {max(columns)}")
            elif all(row[column].strip() for column in columns):
                yield [row[column] for column in columns]
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num} of {path} cannot be read as a table ({error})") from error


def text_of_line(path: Path, number: int, line: str, field: str) -> str:
    """Text of a line of a `.jsonl` file: its field, or the whole line where that is a string.

    Raises:
        ValueError: if the line is no JSON or has no such text.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError(f"line {number} of {path} is no JSON") from None
    text = record.get(field) if isinstance(record, dict) else record
    if not isinstance(text, str):
        raise ValueError(f"line {number} of {path} has no text in the field {field!r}")
    if SURROGATE.search(text):
        raise ValueError(f"line {number} of {path} has half of a character, which no tokenizer reads; take it out")
    return text
