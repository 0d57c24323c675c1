"""Texts from the files that people have."""

import json
from collections.abc import Iterator
from pathlib import Path

from .beir import load_beir
from .lines import read_lines


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
            A `.txt` file with one text a line (empty lines are skipped), a `.jsonl` file of objects or strings, either
            also as `.gz`, or a folder in BEIR format, whose documents are read.
        field (`str`, *optional*, defaults to `"text"`):
            Field of the objects that holds the text.

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
        raise FileNotFoundError(f"{path} does not exist; give a .txt or .jsonl file, or a folder in BEIR format")
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix not in (".txt", ".jsonl"):
        raise ValueError(f"{path.name} is neither .txt nor .jsonl nor a folder in BEIR format")
    for number, line in read_lines(path):
        yield line if suffix == ".txt" else _text(path, number, line, field)


def _text(path: Path, number: int, line: str, field: str) -> str:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        raise ValueError(f"line {number} of {path} is no JSON") from None
    text = record.get(field) if isinstance(record, dict) else record
    if not isinstance(text, str):
        raise ValueError(f"line {number} of {path} has no text in the field {field!r}")
    return text
