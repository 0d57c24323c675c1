"""A fixed mask file: which tokens of a test set are masked and by what, the same for every model and budget."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from .arrow import read_arrow
from .files import write_beside
from .packing_info import check_vocabulary
from .packing_masks import (
    flash_attention_inputs,
    packed_attention_mask,
    packed_position_ids,
    segment_ids,
    takes_bounds,
)
from .tokens import vocabulary_fingerprint


if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

IGNORED = -100
_COLUMNS = ("input_ids", "labels", "seq_lengths")
_METADATA = ("tokenizer", "vocabulary_fingerprint", "vocab_size", "pad_token_id")


def write_mask_file(
    path: str | Path,
    batches: Iterable[Mapping[str, Any]],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    progress: bool = True,
) -> "MaskedRows":
    """Writes batches whose tokens are masked already; what is padding goes, documents of a packed row stay apart.

    Args:
        path (`str` or `Path`):
            A new file, by custom with the suffix `.arrow`.
        batches (`Iterable[Mapping]`):
            For example a `DataLoader` over packed rows with a [`~data.packed_collator.PackedMlmCollator`] that has no
            config, or one over single texts with `DataCollatorForLanguageModeling`: `input_ids`, `labels` (-100 where
            nothing is asked), and `segment_ids` of packed rows or a two-dimensional `attention_mask`.
        tokenizer (`PreTrainedTokenizerBase`):
            The tokenizer of the texts, whose vocabulary the file remembers.
        progress (`bool`, *optional*, defaults to `True`):
            Whether to show progress.

    Returns:
        [`MaskedRows`]: the rows of the file.

    Raises:
        FileExistsError: if there is such a file: its masks are fixed.
        ValueError: if there are no rows, no token is masked in any, a batch lacks something, or a token is not in the
            vocabulary.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"the mask file {path} exists and is not changed; load it, or give a new name")
    columns = pa.schema([(name, pa.list_(pa.int32())) for name in _COLUMNS])
    metadata = {
        "tokenizer": str(tokenizer.name_or_path),
        "vocabulary_fingerprint": vocabulary_fingerprint(tokenizer),
        "vocab_size": str(len(tokenizer)),
        "pad_token_id": str(tokenizer.pad_token_id or 0),
    }
    count = masked = 0
    with write_beside(path) as temporary:
        with pa.ipc.new_stream(str(temporary), columns.with_metadata(metadata)) as writer:
            for number, batch in enumerate(tqdm(batches, desc="Writing masks", unit="batch", disable=not progress)):
                rows = _unpadded(batch, number, tokenizer)
                writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=columns.with_metadata(metadata)))
                count += len(rows)
                masked += sum(int((row["labels"] != IGNORED).sum()) for row in rows)
        if not masked:
            raise ValueError(f"the mask file {path} would have {count} rows and no masked token; give masked batches")
    return MaskedRows(path)


class MaskedRows(Dataset):
    """The rows of a fixed mask file, for a `DataLoader`.

    Args:
        path (`str` or `Path`):
            A file of [`write_mask_file`].

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no mask file.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"the mask file {path} does not exist; write it with write_mask_file")
        try:
            self.table = read_arrow(self.path)
        except pa.ArrowInvalid:
            raise ValueError(f"{path} is no mask file of write_mask_file") from None
        metadata = {name.decode(): value.decode() for name, value in (self.table.schema.metadata or {}).items()}
        if set(_METADATA) - set(metadata) or set(_COLUMNS) - set(self.table.column_names):
            raise ValueError(f"{path} is no mask file of write_mask_file")
        self.tokenizer = metadata["tokenizer"]
        self.vocabulary_fingerprint = metadata["vocabulary_fingerprint"]
        self.vocab_size = int(metadata["vocab_size"])
        self.pad_token_id = int(metadata["pad_token_id"])

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} does not exist; there are {len(self)}")
        return {name: self.table[name][index].values.to_numpy() for name in _COLUMNS}

    def check_model(self, config: "PreTrainedConfig", tokenizer: "PreTrainedTokenizerBase | None" = None) -> None:
        """Checks that a model can be evaluated on the rows.

        Args:
            config (`PreTrainedConfig`):
                The config of the model.
            tokenizer (`PreTrainedTokenizerBase`, *optional*):
                The tokenizer of its checkpoint, if it has one.

        Raises:
            ValueError: if its embeddings have no row for a token, or if its tokenizer gives tokens other ids.
        """
        check_vocabulary(self.vocab_size, config)
        if tokenizer is not None and vocabulary_fingerprint(tokenizer) != self.vocabulary_fingerprint:
            raise ValueError(
                f"the mask file {self.path.name} was written with the tokenizer {self.tokenizer!r} "
                f"({self.vocab_size} tokens), whose vocabulary differs from that of the checkpoint "
                f"({len(tokenizer)} tokens); write one with the tokenizer of the checkpoint"
            )

    def loader(
        self,
        config: "PreTrainedConfig",
        batch_size: int = 32,
        *,
        position_ids_start: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> DataLoader:
        """Batches of the rows in their order, with what keeps packed documents apart.

        Args:
            config (`PreTrainedConfig`):
                Config of a loaded model, which knows its attention.
            batch_size (`int`, *optional*, defaults to 32):
                Rows a batch.
            position_ids_start (`int`, *optional*, defaults to 0):
                Position of the first token of a document: `pad_token_id + 1` for RoBERTa and its kin.
            dtype (`torch.dtype`, *optional*, defaults to `torch.float32`):
                What the model computes in; only eager attention needs it.

        Raises:
            ValueError: if the model has fewer embeddings than the vocabulary has tokens.
        """
        self.check_model(config)
        collate = _MaskedCollator(config, self.pad_token_id, position_ids_start, dtype)
        return DataLoader(self, batch_size=batch_size, collate_fn=collate)


@dataclass(frozen=True)
class _MaskedCollator:
    """Pads rows and gives a model what it takes; the masks are in the rows."""

    config: "PreTrainedConfig"
    pad_token_id: int
    position_ids_start: int
    dtype: torch.dtype

    def __call__(self, rows: list[dict[str, np.ndarray]]) -> dict[str, Any]:
        lengths = [row["seq_lengths"].tolist() for row in rows]
        length = max(map(sum, lengths))
        inputs = {
            "input_ids": torch.full((len(rows), length), self.pad_token_id),
            "labels": torch.full((len(rows), length), IGNORED),
        }
        for number, row in enumerate(rows):
            for name, padded in inputs.items():
                padded[number, : len(row[name])] = torch.from_numpy(row[name].astype(np.int64))
        inputs["position_ids"] = packed_position_ids(lengths, length, self.position_ids_start)
        if takes_bounds(self.config):
            return flash_attention_inputs(inputs, lengths)
        segments = segment_ids(lengths, length)
        return inputs | {"attention_mask": packed_attention_mask(self.config, segments, self.dtype)}


def _unpadded(batch: Mapping[str, Any], number: int, tokenizer: "PreTrainedTokenizerBase") -> list[dict]:
    """Each row of a batch without its padding, and the lengths of its documents."""
    missing = [name for name in ("input_ids", "labels") if name not in batch]
    if missing:
        raise ValueError(f"batch {number} has no {missing[0]}; give the batches of a collator that masks tokens")
    input_ids, labels = (np.asarray(batch[name]) for name in ("input_ids", "labels"))
    largest = max(input_ids.max(initial=0), labels.max(initial=0))
    if largest >= len(tokenizer):
        raise ValueError(
            f"batch {number} has the token {largest}, but the tokenizer has {len(tokenizer)}; give the tokenizer that "
            "the texts were tokenised with"
        )
    if "segment_ids" in batch:
        segments = torch.as_tensor(batch["segment_ids"]).numpy().copy()
        # The padded tail is the last segment of its row.
        for row, tokens in zip(segments, input_ids, strict=True):
            tail = row == row[-1]
            if row[-1] > 0 and (tokens[tail] == tokenizer.pad_token_id).all():
                row[tail] = -1
    else:
        mask = batch.get("attention_mask")
        if "cu_seq_lens_q" in batch or (mask is not None and getattr(mask, "ndim", 0) != 2):
            raise ValueError(
                f"batch {number} has no segment_ids and no attention_mask of two dimensions; make the collator of "
                "packed rows without a config"
            )
        segments = np.zeros_like(input_ids) if mask is None else np.asarray(mask) - 1
    rows = []
    for tokens, asked, row in zip(input_ids, labels, segments, strict=True):
        kept = row >= 0
        seq_lengths = np.unique(row[kept], return_counts=True)[1]
        rows.append({"input_ids": tokens[kept], "labels": asked[kept], "seq_lengths": seq_lengths})
    return rows
