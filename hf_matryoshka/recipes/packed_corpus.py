"""The texts of a run: which documents are trained on, which are held out, and both as packed rows."""

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from datasets import Dataset, load_from_disk

from ..data.pack import pack_texts
from ..data.packing_info import load_packing_info
from ..data.texts import iter_texts, with_fields
from .corpus_options import CorpusOptions


if TYPE_CHECKING:
    from datasets import IterableDataset
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# Enough to learn a vocabulary from, of a data set without end.
TOKENIZER_DOCUMENTS = 200_000


class Corpus:
    """Documents of a recipe, read as a stream, each either trained on or held out.

    Equal documents share their fate, so none is on both sides. Of files, documents are held out until they make up the
    fraction of each file's characters; of a data set that streams, each with the fraction as its chance.

    Args:
        recipe ([`CorpusOptions`]): With `texts` or `dataset_name`.

    Raises:
        FileNotFoundError, ValueError: If a file does not exist, cannot be read or holds no text; a bad line is found
            here, before any work.
        ImportError, OSError: If the data set cannot be loaded.
    """

    def __init__(self, recipe: CorpusOptions):
        self.recipe = recipe
        self.num_train = self.num_validation = None
        self.digest = hashlib.sha256()
        if recipe.dataset_name:
            dataset = _stream(recipe)
            self._sources: list[Callable[[], Iterator[str]]] = [lambda: _column(dataset, recipe)]
            limit = round(recipe.validation_fraction * 2**64)
            self._is_held: Callable[[int], bool] = lambda number: number < limit
            self._kept = [None]
            return
        files = with_fields(recipe.texts, recipe.text_field)
        self._sources = [lambda path=path, field=field: iter_texts(path, field) for path, field in files]
        scanned = [self._scan(path, source) for path, source in zip(recipe.texts, self._sources, strict=True)]
        found = [(numbers, lengths) for numbers, lengths, _ in scanned]
        share = recipe.validation_fraction
        totals = [int(lengths.sum()) for _, lengths in found]
        quotas = [min(totals)] * len(found) if recipe.balance else totals
        held: set[int] = set()
        for (numbers, lengths), quota in zip(found, quotas, strict=True):
            held |= _choose(numbers, lengths, share * quota)
        self._is_held = held.__contains__
        self._kept = [None] * len(found)
        if recipe.balance:
            self._kept = [
                _choose(numbers[::-1], lengths[::-1], (1 - share) * quota, held)
                for (numbers, lengths), quota in zip(found, quotas, strict=True)
            ]
        self.num_train = self.num_validation = 0
        for (numbers, _, counts), kept in zip(scanned, self._kept, strict=True):
            for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
                self.num_validation += count * (number in held)
                self.num_train += count * (number not in held and (kept is None or number in kept))

    def train(self) -> Iterator[str]:
        for source, kept in zip(self._sources, self._kept, strict=True):
            for text in source():
                number = self._number(text)
                if not self._is_held(number) and (kept is None or number in kept):
                    yield text

    def validation(self) -> Iterator[str]:
        for source in self._sources:
            yield from (text for text in source() if self._is_held(self._number(text)))

    def _number(self, text: str) -> int:
        """A random number of a text, which equal texts share."""
        data = f"{self.recipe.seed} {text}".encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")

    def _scan(self, path: str, source: Callable[[], Iterator[str]]) -> tuple[np.ndarray, ...]:
        """Numbers of the texts, in order and each once; the characters of each, all copies together; its copies."""
        pairs = [(self._number(text), len(text)) for text in source()]
        if not pairs:
            raise ValueError(f"{path} holds no text")
        self.digest.update(repr(pairs).encode())
        numbers = np.array([number for number, _ in pairs], dtype=np.uint64)
        numbers, places = np.unique(numbers, return_inverse=True)
        return numbers, np.bincount(places, weights=[length for _, length in pairs]), np.bincount(places)


def _choose(numbers: np.ndarray, lengths: np.ndarray, quota: float, without: set[int] = frozenset()) -> set[int]:
    """Texts in the order of their random numbers, each unless it would exceed the quota of characters.

    At least one, unless the quota is 0 or there is no other: a few long texts need not fit.
    """
    chosen, used = set(), 0
    for number, length in zip(numbers.tolist(), lengths.tolist(), strict=True):
        if number not in without and used + length <= quota:
            chosen.add(number)
            used += length
    if not chosen and quota and len(numbers) > 1:
        chosen.add(int(numbers[lengths.argmin()]))
    return chosen


def _stream(recipe: CorpusOptions) -> "IterableDataset":
    from datasets import load_dataset

    try:
        dataset = load_dataset(recipe.dataset_name, split=recipe.dataset_split, streaming=True)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise OSError(
            f"cannot load split {recipe.dataset_split!r} of the data set {recipe.dataset_name!r} ({reason}); give a "
            "data set that can be reached, or files with texts"
        ) from error
    first = next(iter(dataset), None)
    if first is None or not isinstance(first.get(recipe.dataset_column), str):
        columns = "nothing" if first is None else ", ".join(first)
        raise ValueError(
            f"the data set {recipe.dataset_name!r} has no text in the column {recipe.dataset_column!r} (it has "
            f"{columns}); give dataset_column"
        )
    return dataset


def _column(dataset: "IterableDataset", recipe: CorpusOptions) -> Iterator[str]:
    for row in islice(dataset, recipe.max_documents):
        yield row[recipe.dataset_column]


def pack_corpus(
    corpus: Corpus,
    folder: Path,
    tokenizer: "PreTrainedTokenizerBase",
    recipe: CorpusOptions,
    progress: bool = True,
    end: str = "",
) -> tuple[Dataset, Dataset | None]:
    """Rows to train on and held-out rows, packed apart in `folder`; what is there already is not packed again. Each
    document ends with `end`.

    Raises:
        ValueError: If a part does not fill one row.
    """
    parts = {"train": (corpus.train(), corpus.num_train)}
    if recipe.validation_fraction:
        parts["validation"] = (corpus.validation(), corpus.num_validation)
    rows: dict[str, Dataset] = {}
    for name, (texts, total) in parts.items():
        try:
            rows[name] = load_rows(folder / name)
        except FileNotFoundError:
            pass
        except ValueError as error:
            logger.warning("%s: they are packed anew", error)
            shutil.rmtree(folder / name)
        if name not in rows:
            settings = {"max_length": recipe.max_length, "num_proc": recipe.num_proc, "progress": progress}
            try:
                texts = (text + end for text in texts) if end else texts
                pack_texts(texts, folder / name, tokenizer, total=total, **settings)
            except ValueError as error:
                raise ValueError(f"the {name} part of the texts: {error}") from None
            rows[name] = load_rows(folder / name)
    return rows["train"], _some(rows.get("validation"), recipe)


def split_rows(recipe: CorpusOptions) -> tuple[Dataset, Dataset | None]:
    """The rows of `pretokenized_path`, part of them held out: documents lie in them whole, unless they are longer.

    Raises:
        FileNotFoundError: If it is no packed corpus.
        ValueError: If it has too few rows.
    """
    packed = load_packing_info(recipe.pretokenized_path)
    rows = load_rows(recipe.pretokenized_path)
    if recipe.validation_path:
        if load_packing_info(recipe.validation_path).vocabulary_fingerprint != packed.vocabulary_fingerprint:
            raise ValueError(
                f"{recipe.validation_path} and {recipe.pretokenized_path} were packed with different tokenizers"
            )
        return rows, _some(load_rows(recipe.validation_path), recipe)
    if not recipe.validation_fraction:
        return rows, None
    count = max(1, round(recipe.validation_fraction * len(rows)))
    if count >= len(rows):
        raise ValueError(
            f"{recipe.pretokenized_path} has {len(rows)} rows, too few to hold some out; set validation_fraction to 0"
        )
    order = np.random.default_rng(recipe.seed).permutation(len(rows))
    return rows.select(np.sort(order[count:])), _some(rows.select(np.sort(order[:count])), recipe)


def load_rows(folder: str | Path) -> Dataset:
    """Packed rows, memory-mapped.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If its files are damaged.
    """
    try:
        return load_from_disk(folder)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"the rows in {folder} are damaged ({said}); pack the texts again") from error


def _some(rows: Dataset | None, recipe: CorpusOptions) -> Dataset | None:
    if rows is None or len(rows) <= recipe.validation_rows:
        return rows
    order = np.random.default_rng(recipe.seed).permutation(len(rows))
    return rows.select(np.sort(order[: recipe.validation_rows]))


def check_length(rows: Dataset, needed: int) -> None:
    """Raise `ValueError` if there are fewer rows than a step trains on."""
    if len(rows) < needed:
        tokens = count_tokens(rows)
        raise ValueError(
            f"the corpus has {tokens} tokens in {len(rows)} rows, but one step trains on {needed} rows; give more "
            "text, a smaller batch or a smaller max_length"
        )


def count_tokens(rows: Dataset) -> int:
    return sum(map(sum, rows["seq_lengths"]))
