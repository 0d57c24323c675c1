"""One buffer of texts as one file of packed rows: the unit in which packing is interrupted and resumed."""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import datasets
import numpy as np
import pyarrow as pa

from .arrow import read_arrow, write_arrow
from .files import write_beside
from .packing import pack_sequences
from .tokens import special_affixes, split_into_sequences


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COUNTS = ("num_rows", "num_sequences", "num_documents", "num_empty", "num_tokens")
# Part of the name of a file of rows: files that an older way of packing left are not read.
_VERSION = 1
_TOKEN_FEATURES = datasets.Features(
    {"input_ids": datasets.List(datasets.Value("int32")), "starts": datasets.Value("bool")}
)


def settings_digest(tokenizer_fingerprint: str, max_length: int, fill: bool) -> str:
    """What the rows depend on besides the texts."""
    return f"{_VERSION} {tokenizer_fingerprint} {max_length}{' fill' if fill else ''}"


def part_name(index: int, settings: str, texts: Sequence[str]) -> str:
    """File name of the rows of a buffer: other texts or settings give another one, so a file is never taken for what
    it is not."""
    digest = hashlib.sha256(settings.encode())
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return f"{index:06d}-{digest.hexdigest()[:32]}.arrow"


def read_counts(path: Path) -> dict[str, int] | None:
    """The counts of a file of rows; `None` when there is no whole one."""
    if not path.is_file():
        return None
    try:
        return json.loads(read_arrow(path).schema.metadata[b"counts"])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        return None


def write_part(
    path: Path,
    texts: Sequence[str],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    fill: bool,
    num_proc: int,
    progress: bool,
) -> None:
    """Tokenises and packs a buffer of texts; the file appears whole or not at all.

    Args:
        path (`Path`): The file.
        texts (`Sequence[str]`): The buffer.
        tokenizer (`PreTrainedTokenizerBase`): The tokenizer.
        max_length (`int`): Tokens of a row.
        fill (`bool`): Whether to split sequences where that fills a row.
        num_proc (`int`): Processes that tokenise.
        progress (`bool`): Whether to show the progress of the tokeniser.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="tokens-") as folder, progress_bars(progress):
        sequences = datasets.Dataset.from_dict({"text": texts}).map(
            split_into_sequences,
            batched=True,
            fn_kwargs={"tokenizer": tokenizer, "max_length": max_length},
            remove_columns=["text"],
            features=_TOKEN_FEATURES,
            num_proc=min(num_proc, len(texts)) if num_proc > 1 else None,
            cache_file_name=str(Path(folder) / "tokens.arrow"),
            load_from_cache_file=False,
            new_fingerprint=path.stem[-32:],
            desc="Tokenising",
        )
        table = sequences.data.table.combine_chunks()
        lists = table["input_ids"].combine_chunks() if len(table) else pa.array([], pa.list_(pa.int32()))
        lengths = np.diff(lists.offsets.to_numpy()).astype(np.int64)
        num_documents = int(np.sum(table["starts"].to_numpy())) if len(table) else 0
        affixes = None
        if fill:
            before, after = special_affixes(tokenizer)
            affixes = (len(before), len(after))
        packed = pack_sequences(lists.flatten().to_numpy(), lengths, max_length, affixes)
        del sequences, table, lists
    tokens, token_offsets, sequence_lengths, sequence_offsets = packed
    counts = {
        "num_rows": len(token_offsets) - 1,
        "num_sequences": len(sequence_lengths),
        "num_documents": num_documents,
        "num_empty": len(texts) - num_documents,
        "num_tokens": len(tokens),
    }
    rows = pa.table(
        {
            "input_ids": _lists(tokens, token_offsets),
            "seq_lengths": _lists(sequence_lengths, sequence_offsets),
        }
    )
    with write_beside(path) as temporary:
        write_arrow(rows.replace_schema_metadata({"counts": json.dumps(counts)}), temporary)


def _lists(values: np.ndarray, offsets: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values.astype(np.int32)))


@contextmanager
def progress_bars(shown: bool) -> Iterator[None]:
    """`datasets` with or without its progress bars, which are a switch of the whole process."""
    if shown or datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
