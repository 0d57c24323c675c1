"""Texts and their teacher's embeddings as batches for distillation."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Texts a call of the tokenizer, after which the progress bar moves.
CHUNK_SIZE = 4096


class EmbeddingDataset(Dataset):
    """Texts, tokenised once, each with a vector.

    Args:
        texts (`Sequence[str]`): The texts.
        embeddings (`np.ndarray` of shape `(len(texts), dim)`): The teacher's embedding of each.
        tokenizer (`PreTrainedTokenizerBase`): Tokenizer of the student.
        max_length (`int`): Tokens of a text at most; longer ones are cut.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.

    Raises:
        ValueError: If there is not one vector a text.
    """

    def __init__(
        self,
        texts: Sequence[str],
        embeddings: np.ndarray,
        tokenizer: "PreTrainedTokenizerBase",
        max_length: int,
        progress: bool = True,
    ):
        if len(texts) != len(embeddings):
            raise ValueError(f"there are {len(texts)} texts, but {len(embeddings)} embeddings")
        self.embeddings = embeddings
        self.input_ids: list[np.ndarray] = []
        with tqdm(total=len(texts), desc="Tokenising", unit="text", disable=not progress) as bar:
            for start in range(0, len(texts), CHUNK_SIZE):
                part = list(texts[start : start + CHUNK_SIZE])
                found = tokenizer(part, truncation=True, max_length=max_length)["input_ids"]
                self.input_ids += [np.array(ids, dtype=np.int32) for ids in found]
                bar.update(len(part))

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"input_ids": self.input_ids[index], "embedding": self.embeddings[index]}


class PairDataset(Dataset):
    """Some texts of an [`EmbeddingDataset`], followed by pairs of its texts.

    Args:
        texts ([`EmbeddingDataset`]): The texts.
        rows (`Sequence[int]`): Those that are trained on by themselves.
        pairs (`Sequence[tuple[int, int]]`): Those that are pairs.
    """

    def __init__(self, texts: EmbeddingDataset, rows: Sequence[int], pairs: Sequence[tuple[int, int]]):
        self.texts, self.rows, self.pairs = texts, rows, pairs

    def __len__(self) -> int:
        return len(self.rows) + len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if index < len(self.rows):
            return self.texts[self.rows[index]]
        first, second = (self.texts[row] for row in self.pairs[index - len(self.rows)])
        return first | {f"pair_{name}": value for name, value in second.items()}


class EmbeddingCollator:
    """Pads the texts of a batch to the longest, and the partners of those that are half of a pair.

    Args:
        pad_token_id (`int`): Id of the padding token.
    """

    def __init__(self, pad_token_id: int):
        self.pad_token_id = pad_token_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """
        Args:
            rows (`Sequence[dict]`): Rows of an [`EmbeddingDataset`] or a [`PairDataset`].

        Returns:
            `dict`: `input_ids` and `attention_mask` of shape `(batch, length)`, `embedding` of shape `(batch, dim)`.
            If there are pairs, likewise `pair_input_ids`, `pair_attention_mask` and `pair_embedding`, and `pair_rows`
            of shape `(pairs,)`: the text of the batch that each belongs to.
        """
        batch = self._padded(rows, "")
        paired = [number for number, row in enumerate(rows) if "pair_input_ids" in row]
        if paired:
            batch |= self._padded([rows[number] for number in paired], "pair_")
            batch["pair_rows"] = torch.tensor(paired)
        return batch

    def _padded(self, rows: Sequence[dict[str, Any]], prefix: str) -> dict[str, torch.Tensor]:
        texts = [row[f"{prefix}input_ids"] for row in rows]
        length = max(map(len, texts))
        input_ids = torch.full((len(rows), length), self.pad_token_id)
        attention_mask = torch.zeros((len(rows), length), dtype=torch.int64)
        for number, text in enumerate(texts):
            input_ids[number, : len(text)] = torch.as_tensor(text)
            attention_mask[number, : len(text)] = 1
        embedding = torch.from_numpy(np.stack([row[f"{prefix}embedding"] for row in rows]).astype(np.float32))
        parts = {"input_ids": input_ids, "attention_mask": attention_mask, "embedding": embedding}
        return {f"{prefix}{name}": part for name, part in parts.items()}


def batches_by_length(
    texts: EmbeddingDataset, rows: Sequence[int], collator: EmbeddingCollator, batch_size: int = 256
) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of some texts, once each, the short ones first: hardly any padding.

    Args:
        texts ([`EmbeddingDataset`]): The texts.
        rows (`Sequence[int]`): Which of them.
        collator ([`EmbeddingCollator`]): Makes the batches.
        batch_size (`int`, *optional*, defaults to 256): Texts of a batch.
    """
    rows = sorted(rows, key=lambda row: len(texts.input_ids[row]))
    for start in range(0, len(rows), batch_size):
        yield collator([texts[row] for row in rows[start : start + batch_size]])
