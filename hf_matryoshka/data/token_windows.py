"""One stream of tokens as rows: random windows to train on, consecutive ones to score."""

import gzip
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from .texts import iter_texts


class RandomWindows(Dataset):
    """Windows that begin anywhere in a stream, each drawn by the seed and its number alone.

    Args:
        tokens (`np.ndarray` of shape `(n,)`): The stream.
        length (`int`): Tokens that a window predicts: it holds one more.
        count (`int`): How many windows there are to draw.
        seed (`int`): Seed of the draws.

    Raises:
        ValueError: If the stream is no longer than `length`.
    """

    def __init__(self, tokens: np.ndarray, length: int, count: int, seed: int):
        check_stream(tokens, length)
        self.tokens, self.length, self.count, self.seed = tokens, length, count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        if not 0 <= number < self.count:
            raise IndexError(f"there are {self.count} windows, but number {number} was asked for")
        start = int(np.random.default_rng((self.seed, number)).integers(len(self.tokens) - self.length))
        return {"input_ids": self.tokens[start : start + self.length + 1]}


class ConsecutiveWindows(Dataset):
    """Windows one after the other, which predict every token of a stream but the first once.

    Args:
        tokens (`np.ndarray` of shape `(n,)`): The stream.
        length (`int`): Tokens that a window predicts: it begins with the last one of the window before. The last
            window may be shorter.

    Raises:
        ValueError: If the stream is no longer than `length`.
    """

    def __init__(self, tokens: np.ndarray, length: int):
        check_stream(tokens, length)
        self.tokens, self.length = tokens, length

    def __len__(self) -> int:
        return -(-(len(self.tokens) - 1) // self.length)

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        if not 0 <= number < len(self):
            raise IndexError(f"there are {len(self)} windows, but number {number} was asked for")
        start = number * self.length
        return {"input_ids": self.tokens[start : start + self.length + 1]}


class Streams(Dataset):
    """Several data sets of windows as one, whose rows say in `stream` which of them they are from; they take turns,
    as long as each has one, and the rest comes after.

    Args:
        parts (`Sequence[Dataset]`): One a stream.
    """

    def __init__(self, parts: Sequence[Dataset]):
        self.parts = list(parts)
        rows = [(number, stream) for stream, part in enumerate(self.parts) for number in range(len(part))]  # type: ignore[arg-type]
        self.order = sorted(rows)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> dict[str, Any]:
        row, stream = self.order[number]
        return self.parts[stream][row] | {"stream": stream}

    def of(self, streams: Collection[int]) -> "Streams":
        """The rows of some of the streams."""
        chosen = Streams([])
        chosen.parts, chosen.order = self.parts, [pair for pair in self.order if pair[1] in streams]
        return chosen


def check_stream(tokens: np.ndarray, length: int) -> None:
    """Raise `ValueError` if a stream has no window of `length` and one tokens."""
    if len(tokens) <= length:
        raise ValueError(
            f"a part of the text has {len(tokens)} tokens, too few for a window of {length} and the one before; give "
            "more text or a smaller max_length"
        )


def read_documents(path: str | Path, field: str = "text") -> list[str]:
    """The documents of a file: a `.txt` file is one, with its line breaks; of others as in [`~data.texts.iter_texts`].

    Raises:
        FileNotFoundError, ValueError: As [`~data.texts.iter_texts`]; also if there is no text.
    """
    path = Path(path)
    if path.is_file() and path.name.removesuffix(".gz").endswith(".txt"):
        opened = gzip.open if path.suffix == ".gz" else open
        try:
            with opened(path, "rt", encoding="utf-8", newline="") as file:
                documents = [file.read()]
        except (UnicodeDecodeError, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} cannot be read as text in UTF-8 ({error})") from error
    else:
        documents = list(iter_texts(path, field))
    if not any(documents):
        raise ValueError(f"{path} holds no text")
    return documents
