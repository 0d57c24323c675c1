"""Texts into rows of packed tokens, as a data set on disk."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import datasets
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from .files import ensure_writable_folder, writing
from .packing_info import INFO_FILE, PackingInfo
from .packing_parts import COUNTS, part_name, progress_bars, read_counts, settings_digest, write_part
from .tokens import check_max_length, tokenizer_fingerprint, vocabulary_fingerprint


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Texts that are packed together, at most: enough for best-fit-decreasing to fill the rows, whatever their number.
BUFFER_SIZE = 50_000
# Books are long: so many characters end a buffer too, which bounds the memory and what an interruption can cost.
BUFFER_CHARACTERS = 1 << 25


def pack_texts(
    texts: Iterable[str],
    output: str | Path,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    max_length: int = 512,
    fill: bool = False,
    num_proc: int = 1,
    buffer_size: int = BUFFER_SIZE,
    total: int | None = None,
    progress: bool = True,
) -> PackingInfo:
    """Tokenises texts and packs them into rows of `max_length` tokens; no token is dropped.

    Each document keeps its special tokens; one that is longer than a row becomes several sequences, and with `fill` so
    does one that fills the gaps of other rows. Rows are packed by best-fit-decreasing
    ([`~data.packing.best_fit_decreasing`]) within a buffer of texts, so that memory does not grow with the corpus.
    Every packed buffer is written as soon as it is ready: a call that was interrupted goes on where it stopped, given
    the same texts and settings. The rows do not depend on `num_proc`.

    Args:
        texts (`Iterable[str]`):
            The documents, for example of [`~data.texts.iter_texts`] or of a data set that streams.
        output (`str` or `Path`):
            A new folder, or an empty one. `datasets.load_from_disk` reads it: `input_ids`, without padding, and
            `seq_lengths`, the tokens of each sequence of the row.
        tokenizer (`PreTrainedTokenizerBase`):
            The tokenizer.
        max_length (`int`, *optional*, defaults to 512):
            Tokens of a row, and of the longest sequence with its special tokens.
        fill (`bool`, *optional*, defaults to `False`):
            Whether to split documents where that fills a row ([`~data.row_filling.fill_rows`]). Without it, rows of
            documents that are longer than half a row stay partly empty.
        num_proc (`int`, *optional*, defaults to 1):
            Processes that tokenise.
        buffer_size (`int`, *optional*, defaults to 50,000):
            Most texts that are packed together; 32 M characters end a buffer as well.
        total (`int`, *optional*):
            Number of texts, if it is known: the progress bar then says how long it will take.
        progress (`bool`, *optional*, defaults to `True`):
            Whether to show progress.

    Returns:
        [`~data.packing_info.PackingInfo`]: also in `packing.json`.

    Raises:
        FileExistsError: if `output` holds something.
        ValueError: if a setting is out of range, a text is no string, or the texts do not fill one row.
        OSError: if the folder cannot be written.
        RuntimeError: if another process packs to it.
    """
    output = Path(output)
    if min(num_proc, buffer_size) < 1:
        raise ValueError(f"num_proc and buffer_size must be at least 1, got {num_proc} and {buffer_size}")
    check_max_length(max_length, tokenizer)
    check_output(output)
    work = ensure_writable_folder(_work_folder(output))
    settings = settings_digest(tokenizer_fingerprint(tokenizer), max_length, fill)
    parts: list[Path] = []
    with writing(output), _only_one(work, output):
        with tqdm(total=total, desc="Packing", unit="text", disable=not progress) as bar:
            for index, buffer in enumerate(_buffers(texts, buffer_size)):
                path = work / part_name(index, settings, buffer)
                if read_counts(path) is None:
                    write_part(path, buffer, tokenizer, max_length, fill, num_proc, progress)
                parts.append(path)
                bar.update(len(buffer))
        info = _info(parts, tokenizer, max_length, fill, buffer_size)
        if info.num_tokens < max_length:
            shutil.rmtree(work)
            raise ValueError(
                f"the corpus has {info.num_tokens} tokens, too few for one row of {max_length}; give more text or a "
                "smaller max_length"
            )
        _assemble(parts, info, work / "assembled", output, progress)
        shutil.rmtree(work)
    return info


def check_output(output: str | Path) -> None:
    """Raise `FileExistsError` unless `output` is a new name or an empty folder."""
    output = Path(output)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        _clear(_work_folder(output))
        raise FileExistsError(f"{output} already exists and is not an empty folder; give a new folder")


def _work_folder(output: Path) -> Path:
    return output.parent / f".{output.name}.packing"


def _clear(work: Path) -> None:
    """Removes what a call left that was killed after its rows were there; not what another one works on."""
    if work.is_dir():
        with suppress(Timeout), FileLock(work / "lock", timeout=0):
            shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _only_one(work: Path, output: Path) -> Iterator[None]:
    lock = FileLock(work / "lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise RuntimeError(f"another process is packing to {output}; wait for it or give another folder") from None
    try:
        yield
    finally:
        lock.release()
        if work.is_dir() and not any(work.glob("*.arrow")):
            shutil.rmtree(work)


def _buffers(texts: Iterable[str], buffer_size: int) -> Iterator[list[str]]:
    buffer, characters = [], 0
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"texts must be strings, got {type(text).__name__} at index {number}")
        buffer.append(text)
        characters += len(text)
        if len(buffer) == buffer_size or characters >= BUFFER_CHARACTERS:
            yield buffer
            buffer, characters = [], 0
    if buffer:
        yield buffer


def _info(
    parts: list[Path], tokenizer: "PreTrainedTokenizerBase", max_length: int, fill: bool, buffer_size: int
) -> PackingInfo:
    # Each of them was whole just now.
    counts = [cast(dict[str, int], read_counts(path)) for path in parts]
    sums: dict[str, Any] = {name: sum(count[name] for count in counts) for name in COUNTS}
    return PackingInfo(
        max_length=max_length,
        **sums,
        tokenizer=str(tokenizer.name_or_path),
        tokenizer_fingerprint=tokenizer_fingerprint(tokenizer),
        vocabulary_fingerprint=vocabulary_fingerprint(tokenizer),
        vocab_size=len(tokenizer),
        buffer_size=buffer_size,
        fill=fill,
    )


def _assemble(parts: list[Path], info: PackingInfo, temporary: Path, output: Path, progress: bool) -> None:
    if temporary.exists():  # of a run that was killed here
        shutil.rmtree(temporary)
    rows = datasets.concatenate_datasets([datasets.Dataset.from_file(str(path)) for path in parts])
    with progress_bars(progress):
        rows.save_to_disk(temporary)
    (temporary / INFO_FILE).write_text(json.dumps(info.to_dict(), indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, output)
