"""Texts whose scores are known."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .lines import read_lines
from .texts import DELIMITERS, file_kind, table_rows, text_of_line


def read_scored_texts(
    path: str | Path, text_field: str = "text", score_field: str = "score"
) -> tuple[list[str], np.ndarray]:
    """Texts and their scores.

    Args:
        path (`str` or `Path`): A `.jsonl` file of objects or a `.csv` or `.tsv` table, also as `.gz`.
        text_field (`str`, *optional*, defaults to `"text"`): Field or column of the texts.
        score_field (`str`, *optional*, defaults to `"score"`): Field or column of the scores.

    Returns:
        `tuple[list[str], np.ndarray]`: The texts and, of shape `(texts,)` in float64, their scores.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is of another kind or empty, or a text or a score is missing or no finite number.
    """
    path = Path(path)
    kind = file_kind(path, (".jsonl", *DELIMITERS))
    rows: list[Sequence[Any]] = []
    if kind in DELIMITERS:
        rows += table_rows(path, DELIMITERS[kind], [text_field, score_field])
    else:
        for number, line in read_lines(path):
            text, record = text_of_line(path, number, line, text_field), json.loads(line)
            rows.append((text, record.get(score_field) if isinstance(record, dict) else None))
    if not rows:
        raise ValueError(f"{path} holds no text with a score")
    scores = []
    for text, found in rows:
        try:
            score = math.nan if isinstance(found, bool) else float(found)
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            raise ValueError(f"{path}: the {score_field} of {text[:40]!r} is {found!r}, which is no finite number")
        scores.append(score)
    return [text for text, _ in rows], np.array(scores)
