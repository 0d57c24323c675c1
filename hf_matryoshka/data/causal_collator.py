"""Batches of rows for next-token prediction."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .packing_masks import packed_position_ids


class CausalCollator:
    """Puts rows of tokens into a batch; every token but the first of a document is to be predicted.

    Args:
        pad_token_id (`int`, *optional*): What shorter rows end with; 0 by default. It is never predicted and, coming
            last, seen by nothing.
    """

    def __init__(self, pad_token_id: int | None = None):
        self.pad_token_id = pad_token_id or 0

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Collates rows.

        Args:
            rows (`Sequence[Mapping]`):
                Rows with `input_ids` and, where one holds several documents, `seq_lengths`, the tokens of each; a
                number in the column `stream` is handed on.

        Returns:
            `dict`: `input_ids` and `labels` of shape `(batch, length)`, -100 where nothing is to predict; of packed
            rows also `position_ids`, which start again at each document: models of transformers keep documents apart
            by them where there is no attention mask; `streams` of shape `(batch,)` where rows have a `stream`.
        """
        texts = [torch.as_tensor(row["input_ids"], dtype=torch.int64) for row in rows]
        length = max(map(len, texts))
        input_ids = torch.full((len(texts), length), self.pad_token_id)
        labels = torch.full((len(texts), length), -100)
        for row, tokens in enumerate(texts):
            input_ids[row, : len(tokens)] = labels[row, : len(tokens)] = tokens
        batch = {"input_ids": input_ids, "labels": labels}
        if any("seq_lengths" in row for row in rows):
            lengths = [list(row.get("seq_lengths", [len(row["input_ids"])])) for row in rows]
            batch["position_ids"] = packed_position_ids(lengths, length)
            labels[batch["position_ids"] == 0] = -100
        if all("stream" in row for row in rows):
            batch["streams"] = torch.tensor([int(row["stream"]) for row in rows])
        return batch
