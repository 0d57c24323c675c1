"""Texts from the files that people have."""

import json
from pathlib import Path

from .beir import load_beir


def read_texts(path: str | Path, field: str = "text") -> list[str]:
    """Texts of a file or folder.

    Args:
        path (`str` or `Path`):
            A `.txt` file with one text a line (empty lines are skipped), a `.jsonl` file of objects or strings, or a
            folder in BEIR format, whose documents are read.
        field (`str`, *optional*, defaults to `"text"`):
            Field of the objects that holds the text.

    Returns:
        `list[str]`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is of another kind, a line has no text, or there are none.
    """
    path = Path(path)
    if path.is_dir():
        return load_beir(path).documents()
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give a .txt or .jsonl file, or a folder in BEIR format")
    lines = [(number, line) for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line.strip()]
    if path.suffix == ".txt":
        texts = [line for _, line in lines]
    elif path.suffix == ".jsonl":
        texts = [_text(path, number, line, field) for number, line in lines]
    else:
        raise ValueError(f"{path.name} is neither .txt nor .jsonl nor a folder in BEIR format")
    if not texts:
        raise ValueError(f"{path} holds no text")
    return texts


def _text(path: Path, number: int, line: str, field: str) -> str:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        raise ValueError(f"line {number} of {path} is no JSON") from None
    text = record.get(field) if isinstance(record, dict) else record
    if not isinstance(text, str):
        raise ValueError(f"line {number} of {path} has no text in the field {field!r}")
    return text
