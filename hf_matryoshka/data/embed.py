"""Texts to full-width vectors, encoded once and kept as Arrow."""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from .arrow import read_arrow, vectors_table, write_arrow
from .base_models import load_base_model, model_fingerprint
from .files import default_cache_dir, ensure_writable_folder, write_beside
from .vectors import check_vectors


if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

# Texts a file: what an interruption can cost. Several batches, so that sorting by length still pays.
CHUNK_SIZE = 256


def embed_texts(
    model: "SentenceTransformer | str | Path",
    texts: Sequence[str],
    *,
    cache_dir: str | os.PathLike | None = None,
    batch_size: int = 32,
    prompt: str | None = None,
    level: str | None = None,
    progress: bool = True,
    name: str = "texts",
) -> np.ndarray:
    """Encodes texts at the full width of a model, or reads the vectors of an earlier call.

    The cache holds one folder for each combination of model weights, prompt and texts, with one Arrow file for every
    256 texts (`datasets.Dataset.from_file` reads it). A file is written as soon as it is encoded, so a call that was
    interrupted goes on where it stopped.

    Args:
        model (`SentenceTransformer`, `str` or `Path`):
            The model, or what [`load_base_model`] accepts.
        texts (`Sequence[str]`):
            The texts.
        cache_dir (`str` or `os.PathLike`, *optional*):
            Root of the cache; `$HF_MATRYOSHKA_CACHE` or `~/.cache/hf_matryoshka` by default.
        batch_size (`int`, *optional*, defaults to 32):
            Texts a forward pass.
        prompt (`str`, *optional*):
            Text to put before each text; by default what the model does by itself.
        level (`str`, *optional*):
            Level of a nested encoder; the largest by default.
        progress (`bool`, *optional*, defaults to `True`):
            Whether to show a progress bar while encoding.
        name (`str`, *optional*, defaults to `"texts"`):
            What to call the texts in the progress bar and in messages.

    Returns:
        `np.ndarray` of shape `(len(texts), dim)`: float32.

    Raises:
        ValueError: if `texts` is no sequence of strings or is empty, or if the model gives NaN or inf.
        OSError: if the cache cannot be written, or a model that is named cannot be loaded.
    """
    check_texts(texts, name)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    root = ensure_writable_folder(default_cache_dir() if cache_dir is None else Path(cache_dir).expanduser())
    if isinstance(model, (str, Path)):
        model = load_base_model(model)
    settings: dict[str, Any] = {} if level is None else {"level": level}
    folder = root / "embeddings" / _cache_key(" ".join([model_fingerprint(model), *settings.values()]), prompt, texts)

    chunks: dict[int, np.ndarray] = {}
    for start, stop in _chunk_bounds(len(texts)):
        vectors = _read_chunk(_chunk_path(folder, start, stop), stop - start, name)
        if vectors is not None:
            chunks[start] = vectors
    done = sum(map(len, chunks.values()))
    if done < len(texts):
        with tqdm(total=len(texts), initial=done, desc=f"Encoding {name}", unit="text", disable=not progress) as bar:
            for start, stop in _chunk_bounds(len(texts)):
                if start in chunks:
                    continue
                vectors = model.encode(
                    list(texts[start:stop]), batch_size=batch_size, prompt=prompt, show_progress_bar=False, **settings
                )
                chunks[start] = check_vectors(vectors, name=f"the vectors of {name}[{start}:{stop}]")
                _write_chunk(chunks[start], _chunk_path(folder, start, stop))
                bar.update(stop - start)
    return np.concatenate([chunks[start] for start, _ in _chunk_bounds(len(texts))])


def check_texts(texts: Sequence[str], name: str) -> None:
    """Raise `ValueError` unless they are a sequence of strings, and not an empty one."""
    if isinstance(texts, str):
        raise ValueError(f"{name} must be a list of strings, got one string")
    if len(texts) == 0:
        raise ValueError(f"{name} is empty; at least one text is needed")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"{name} must be strings, got {type(text).__name__} at index {index}")


def _cache_key(fingerprint: str, prompt: str | None, texts: Sequence[str]) -> str:
    digest = hashlib.sha256(f"{fingerprint}\n{prompt!r}\n".encode("utf-8", "surrogatepass"))
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        # The length keeps ["ab", "c"] and ["a", "bc"] apart.
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()


def _chunk_bounds(total: int) -> Iterator[tuple[int, int]]:
    for start in range(0, total, CHUNK_SIZE):
        yield start, min(start + CHUNK_SIZE, total)


def _chunk_path(folder: Path, start: int, stop: int) -> Path:
    return folder / f"{start:09d}-{stop:09d}.arrow"


def _write_chunk(vectors: np.ndarray, path: Path) -> None:
    with write_beside(path) as temporary:
        write_arrow(vectors_table(vectors, metadata={"sha256": _checksum(vectors, path)}), temporary)


def _checksum(vectors: np.ndarray, path: Path) -> str:
    """Covers the place too: a file copied to another name is corrupt, whatever it holds."""
    digest = hashlib.sha256(f"{path.parent.name}/{path.name} {vectors.shape}\n".encode())
    digest.update(vectors)  # type: ignore[arg-type]  # an array is a buffer, which numpy's types do not say
    return digest.hexdigest()


def _read_chunk(path: Path, rows: int, name: str) -> np.ndarray | None:
    """Vectors of one cache file; `None` when it is missing, or (said so) when it is not what was written."""
    if not path.is_file():
        return None
    try:
        table = read_arrow(path)
        table.validate()
        vectors = table["embedding"].combine_chunks().flatten().to_numpy().reshape(rows, -1)
        intact = table.schema.metadata[b"sha256"].decode() == _checksum(vectors, path)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        intact = False
    if not intact:
        logger.warning("the cached vectors of %s in %s are corrupt and will be encoded again", name, path)
        return None
    return vectors
