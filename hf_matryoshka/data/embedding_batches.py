"""Texts and their teacher's embeddings as batches for distillation."""

from collections.abc import Sequence
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


class EmbeddingCollator:
    """Pads the texts of a batch to the longest.

    Args:
        pad_token_id (`int`): Id of the padding token.
    """

    def __init__(self, pad_token_id: int):
        self.pad_token_id = pad_token_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """
        Args:
            rows (`Sequence[dict]`): Rows of an [`EmbeddingDataset`].

        Returns:
            `dict`: `input_ids` and `attention_mask` of shape `(batch, length)`, `embedding` of shape `(batch, dim)`.
        """
        length = max(len(row["input_ids"]) for row in rows)
        input_ids = torch.full((len(rows), length), self.pad_token_id)
        attention_mask = torch.zeros((len(rows), length), dtype=torch.int64)
        for number, row in enumerate(rows):
            count = len(row["input_ids"])
            input_ids[number, :count] = torch.as_tensor(row["input_ids"])
            attention_mask[number, :count] = 1
        embedding = torch.from_numpy(np.stack([row["embedding"] for row in rows]).astype(np.float32))
        return {"input_ids": input_ids, "attention_mask": attention_mask, "embedding": embedding}
