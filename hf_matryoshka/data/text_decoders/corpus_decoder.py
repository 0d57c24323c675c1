"""Decodes embeddings to the nearest text of a corpus: no model, no network, never an ungrammatical text."""

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..arrow import read_arrow, write_arrow
from ..base_models import load_base_model
from ..convention_encoders import detect_convention
from ..embed import check_texts, embed_texts
from ..embedding_conventions import check_convention_name
from ..files import write_beside
from ..vectors import check_vectors
from .corpus_search import nearest_rows


if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CONFIG_FILE, TEXTS_FILE, EMBEDDINGS_FILE = "text_decoder.json", "texts.arrow", "embeddings.npy"
KIND, FORMAT_VERSION = "corpus", 1
# Rows that are in memory at once while a folder is written.
BLOCK_SIZE = 65536


class CorpusTextDecoder:
    """A [`TextDecoder`] that answers with the text of a corpus whose embedding has the largest cosine.

    The vectors may lie on disk: a corpus of a million texts is searched in flat memory. Among texts with the same
    cosine the first wins.

    Args:
        texts (`Sequence[str]` or `pa.Array`):
            The texts.
        embeddings (`np.ndarray` of shape `(len(texts), dim)`):
            Their embeddings, in memory or memory-mapped.
        embedding_convention (`str`, *optional*):
            Their convention; `None` for that of some SentenceTransformer.

    Raises:
        ValueError: if there is not one good vector a text, or there is no such convention.
    """

    def __init__(
        self, texts: Sequence[str] | pa.Array, embeddings: np.ndarray, embedding_convention: str | None = None
    ):
        check_convention_name(embedding_convention)
        self.embeddings = check_vectors(embeddings, name="the embeddings of the corpus")
        if len(texts) != len(self.embeddings):
            raise ValueError(f"the corpus has {len(texts)} texts, but {len(self.embeddings)} embeddings")
        self.embedding_convention = embedding_convention
        self._texts = _as_column(texts)

    @classmethod
    def from_texts(
        cls,
        texts: Sequence[str],
        model: "SentenceTransformer | str | Path",
        folder: str | Path | None = None,
        *,
        cache_dir: str | Path | None = None,
        batch_size: int = 32,
        prompt: str | None = None,
        progress: bool = True,
    ) -> "CorpusTextDecoder":
        """Encodes a corpus with [`embed_texts`], whose cache also serves the next time.

        Args:
            texts (`Sequence[str]`):
                The texts.
            model (`SentenceTransformer`, `str` or `Path`):
                The encoder of the embeddings that are to be decoded.
            folder (`str` or `Path`, *optional*):
                New folder to write the vectors to and to search them in, for a corpus that does not fit in memory; see
                [`CorpusTextDecoder.save`].
            cache_dir, batch_size, prompt, progress:
                As in [`embed_texts`].

        Raises:
            FileExistsError: if `folder` already holds something.
            ValueError: if `texts` is no sequence of strings or is empty.
        """
        column = _as_column(texts)
        if folder is not None:
            _check_new(Path(folder))
        model = load_base_model(model) if isinstance(model, (str, Path)) else model
        options: dict[str, Any] = {
            "cache_dir": cache_dir,
            "batch_size": batch_size,
            "prompt": prompt,
            "progress": progress,
        }
        convention = detect_convention(model)
        if folder is None:
            return cls(column, embed_texts(model, texts, name="the corpus", **options), convention)
        blocks = (
            embed_texts(model, texts[start : start + BLOCK_SIZE], name=f"the corpus from {start}", **options)
            for start in range(0, len(texts), BLOCK_SIZE)
        )
        _write(Path(folder), column, blocks, convention)
        return cls.load(folder)

    def __len__(self) -> int:
        return len(self.embeddings)

    def decode(self, embeddings: np.ndarray, exclude: Sequence[int] | np.ndarray | None = None) -> list[str]:
        """
        Args:
            embeddings (`np.ndarray` of shape `(n, dim)`):
                The embeddings to decode.
            exclude (`Sequence[int]` or `np.ndarray` of shape `(n, e)`, *optional*):
                Rows of the corpus that are no answer, or, in two dimensions, those that are none for each embedding.

        Returns:
            `list[str]`: the nearest text of each.

        Raises:
            ValueError: if the vectors are bad or of another width than the corpus, or no text is left.
        """
        return [texts[0] for texts in self.decode_top_k(embeddings, 1, exclude)[0]]

    def decode_top_k(
        self, embeddings: np.ndarray, top_k: int, exclude: Sequence[int] | np.ndarray | None = None
    ) -> tuple[list[list[str]], np.ndarray]:
        """The `top_k` nearest texts of each embedding, the nearest first, and their cosines of shape `(n, top_k)`."""
        rows, cosines = self.search(embeddings, top_k, exclude)
        texts = self._texts.take(pa.array(rows.reshape(-1))).to_pylist()
        return [texts[start : start + top_k] for start in range(0, len(texts), top_k)], cosines

    def search(
        self, embeddings: np.ndarray, top_k: int = 1, exclude: Sequence[int] | np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows (int64) and cosines (float64) of the `top_k` nearest texts, both of shape `(n, top_k)`."""
        queries = check_vectors(embeddings, width=self.embeddings.shape[1], name="embeddings")
        return nearest_rows(queries, self.embeddings, top_k, exclude)

    def save(self, folder: str | Path) -> None:
        """Writes the corpus as a folder, whole or not at all: `texts.arrow`, `embeddings.npy` and `text_decoder.json`.

        Raises:
            FileExistsError: if `folder` already holds something.
            OSError: if it cannot be written.
        """
        starts = range(0, len(self), BLOCK_SIZE)
        blocks = (self.embeddings[start : start + BLOCK_SIZE] for start in starts)
        _write(Path(folder), self._texts, blocks, self.embedding_convention)

    @classmethod
    def load(cls, folder: str | Path) -> "CorpusTextDecoder":
        """Memory-maps a folder that [`CorpusTextDecoder.save`] wrote.

        Raises:
            FileNotFoundError: if a file of it is missing.
            ValueError: if it is no such folder, or its files do not fit each other.
        """
        folder = Path(folder)
        missing = [name for name in (CONFIG_FILE, TEXTS_FILE, EMBEDDINGS_FILE) if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(f"{folder} is no saved CorpusTextDecoder: it has no {', no '.join(missing)}")
        try:
            config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            version = (config["kind"], config["format_version"])
            convention = config["embedding_convention"]
            texts = read_arrow(folder / TEXTS_FILE)["text"].chunk(0)
            embeddings = np.load(folder / EMBEDDINGS_FILE, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, KeyError, TypeError, IndexError, pa.ArrowException) as error:
            raise ValueError(f"{folder} is no readable CorpusTextDecoder ({error})") from error
        if version != (KIND, FORMAT_VERSION):
            raise ValueError(
                f"{folder} holds a text decoder of kind and version {version}; this reads {(KIND, FORMAT_VERSION)}"
            )
        return cls(texts, embeddings, convention)


def _as_column(texts: Sequence[str] | pa.Array) -> pa.Array:
    if isinstance(texts, pa.Array):
        return texts
    check_texts(texts, "the corpus")
    return pa.array(texts, pa.large_string())


def _write(folder: Path, texts: pa.Array, blocks: Iterator[np.ndarray], convention: str | None) -> None:
    _check_new(folder)
    first = next(blocks)
    with write_beside(folder) as temporary:
        temporary.mkdir()
        write_arrow(pa.table({"text": texts}), temporary / TEXTS_FILE)
        shape = (len(texts), first.shape[1])
        vectors = np.lib.format.open_memmap(temporary / EMBEDDINGS_FILE, mode="w+", dtype=np.float32, shape=shape)
        start = 0
        for block in chain([first], blocks):
            vectors[start : start + len(block)] = block
            start += len(block)
        vectors.flush()
        config = {"kind": KIND, "format_version": FORMAT_VERSION, "embedding_convention": convention}
        (temporary / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _check_new(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f"{folder} already exists and is not an empty folder; give a new folder")
