"""The texts of a GPT run, as rows of tokens to train on and held-out ones."""

import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..data.character_tokenizer import character_tokenizer
from ..data.files import write_beside
from ..data.packing_info import INFO_FILE
from ..data.texts import with_fields
from ..data.token_windows import ConsecutiveWindows, RandomWindows, Streams, read_documents
from ..data.train_tokenizer import train_tokenizer
from .fractal_recipe import FractalRecipe
from .gpt_recipe import CHARACTERS, GPTRecipe
from .packed_corpus import TOKENIZER_DOCUMENTS, Corpus, check_length, pack_corpus, split_rows


class WindowCorpus:
    """Files as streams, of each of which the end is held out.

    Args:
        recipe ([`GPTRecipe`]): With `texts` and `rows="windows"`.

    Raises:
        FileNotFoundError, ValueError: If a file does not exist, cannot be read or holds no text.
    """

    def __init__(self, recipe: GPTRecipe):
        self.recipe = recipe
        self.files = [read_documents(*pair) for pair in with_fields(recipe.texts, recipe.text_field)]
        self.digest = hashlib.sha256()
        for documents in self.files:
            for text in documents:
                self.digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())

    def texts(self) -> Iterator[str]:
        """What a tokenizer is made of: characters of all texts, as a held-out one may have its own."""
        for documents in self.files:
            yield from documents

    def rows(
        self, tokenizer: PreTrainedTokenizerBase, folder: Path, count: int, progress: bool
    ) -> tuple[Dataset, Dataset | None]:
        """`count` random windows to train on, and consecutive held-out ones.

        Raises:
            ValueError: If a part has no window.
        """
        recipe, parts = self.recipe, self.parts(tokenizer)
        trained, held_out = (np.concatenate(part) for part in zip(*parts, strict=True))
        windows = RandomWindows(trained, recipe.max_length, count, recipe.seed)
        return windows, self.scored(held_out, recipe.validation_rows)

    def parts(self, tokenizer: PreTrainedTokenizerBase) -> list[tuple[np.ndarray, np.ndarray]]:
        """The tokens of each file, to train on and held out."""
        parts = []
        for documents in self.files:
            ids = tokenizer(documents, add_special_tokens=False)["input_ids"]
            if len(documents) > 1 and tokenizer.eos_token_id is not None:
                ids = [[*one, tokenizer.eos_token_id] for one in ids]
            stream = np.concatenate([np.asarray(one, dtype=np.int32) for one in ids])
            cut = int(len(stream) * (1 - self.recipe.validation_fraction))
            parts.append((stream[:cut], stream[cut:]))
        return parts

    def scored(self, held_out: np.ndarray, rows: int) -> ConsecutiveWindows | None:
        """Consecutive windows from the beginning, at most so many."""
        if not self.recipe.validation_fraction:
            return None
        return ConsecutiveWindows(held_out[: rows * self.recipe.max_length + 1], self.recipe.max_length)


class StreamCorpus(WindowCorpus):
    """Files as streams of their own, one for each smallest doll of a FractalFormer.

    Args:
        recipe ([`FractalRecipe`]): Its recipe.

    Raises:
        FileNotFoundError, ValueError: As [`WindowCorpus`].
    """

    def rows(
        self, tokenizer: PreTrainedTokenizerBase, folder: Path, count: int, progress: bool
    ) -> tuple[Streams, Streams | None]:
        """`count` random windows of all streams in turn, and consecutive held-out ones of each."""
        recipe, parts = self.recipe, self.parts(tokenizer)
        share = -(-count // len(parts))
        # Another seed for each: equal numbers would begin at alike places.
        windows = [
            RandomWindows(trained, recipe.max_length, share, recipe.seed * len(parts) + stream)
            for stream, (trained, _) in enumerate(parts)
        ]
        if not recipe.validation_fraction:
            return Streams(windows), None
        rows = -(-recipe.validation_rows // len(parts))
        return Streams(windows), Streams([self.scored(held_out, rows) for _, held_out in parts])


class DocumentCorpus:
    """Documents, packed into rows, each either trained on or held out.

    Args:
        recipe ([`GPTRecipe`]): With `texts` or `dataset_name`.

    Raises:
        FileNotFoundError, ValueError, ImportError, OSError: As [`~recipes.packed_corpus.Corpus`].
    """

    def __init__(self, recipe: GPTRecipe):
        self.recipe, self.corpus = recipe, Corpus(recipe)
        self.digest = self.corpus.digest

    def texts(self) -> Iterator[str]:
        """What a tokenizer is made of."""
        if self.recipe.tokenizer == CHARACTERS and self.recipe.validation_fraction:
            yield from self.corpus.validation()
        yield from islice(self.corpus.train(), TOKENIZER_DOCUMENTS)

    def rows(
        self, tokenizer: PreTrainedTokenizerBase, folder: Path, count: int, progress: bool
    ) -> tuple[Dataset, Dataset | None]:
        """Packed rows to train on and held-out ones, in `folder`; each document ends with the tokenizer's end."""
        return pack_corpus(self.corpus, folder, tokenizer, self.recipe, progress, end=tokenizer.eos_token or "")


class PackedRows:
    """Rows that `hf-matryoshka pack` made.

    Args:
        recipe ([`GPTRecipe`]): With `pretokenized_path`.

    Raises:
        FileNotFoundError, ValueError: As [`~recipes.packed_corpus.split_rows`].
    """

    def __init__(self, recipe: GPTRecipe):
        self.parts = split_rows(recipe)
        self.digest = hashlib.sha256()
        for path in filter(None, (recipe.pretokenized_path, recipe.validation_path)):
            self.digest.update((Path(path) / INFO_FILE).read_bytes())

    def texts(self) -> Iterator[str]:
        raise ValueError("packed rows have their tokenizer, and hold no texts to make one of")

    def rows(
        self, tokenizer: PreTrainedTokenizerBase, folder: Path, count: int, progress: bool
    ) -> tuple[Dataset, Dataset | None]:
        return self.parts


def open_corpus(recipe: GPTRecipe) -> WindowCorpus | DocumentCorpus | PackedRows:
    """The texts of a recipe.

    Raises:
        FileNotFoundError, ValueError, ImportError, OSError: As the classes above.
    """
    if recipe.pretokenized_path:
        return PackedRows(recipe)
    if isinstance(recipe, FractalRecipe):
        return StreamCorpus(recipe)
    return WindowCorpus(recipe) if recipe.rows == "windows" else DocumentCorpus(recipe)


def own_tokenizer(
    folder: Path, corpus: WindowCorpus | DocumentCorpus, recipe: GPTRecipe, progress: bool
) -> PreTrainedTokenizerBase:
    """A tokenizer made of the texts, or the one that this run made before it was interrupted."""
    if not folder.is_dir():
        if recipe.tokenizer == CHARACTERS:
            tokenizer = character_tokenizer(corpus.texts())
        else:
            tokenizer = train_tokenizer(corpus.texts(), recipe.vocab_size, causal=True, progress=progress)
        with write_beside(folder) as temporary:
            tokenizer.save_pretrained(temporary)
    return AutoTokenizer.from_pretrained(folder)


def check_rows(rows: Dataset, needed: int) -> None:
    """Raise `ValueError` if packed rows are fewer than a step takes; of windows there are always enough."""
    if not isinstance(rows, (RandomWindows, Streams)):
        check_length(rows, needed)
