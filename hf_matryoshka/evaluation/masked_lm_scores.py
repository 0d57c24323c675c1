"""Masked language modelling at several levels in one pass over the batches."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..data.evaluation_mode import evaluation_mode
from ..data.mask_file import IGNORED
from ..data.packing_masks import add_packed_mask
from .calibration import CalibrationBins


# Masked tokens whose probabilities are in memory at once, beside the logits of the batch.
_CHUNK = 1024


@dataclass(frozen=True)
class MaskedBatches:
    """What a first look at the batches found.

    Args:
        digests (`list[str]`): Of each batch; equal for equal tokens and labels.
        digest (`str`): Of all masked tokens and what they were masked by, whatever the size of the batches.
        counts (`np.ndarray` of shape `(rows,)`): Masked tokens of each row.
        length (`int`): Tokens of the longest row.
    """

    digests: list[str]
    digest: str
    counts: np.ndarray
    length: int


def check_batches(loader: Iterable[Mapping[str, Any]], vocab_size: int) -> MaskedBatches:
    """Reads all batches once, before any work.

    Args:
        loader (`Iterable[Mapping]`): Batches with `input_ids` and `labels`.
        vocab_size (`int`): Embeddings of the model.

    Raises:
        ValueError: If there are no batches or they can be read only once, one has no labels, a token has no embedding,
            or no token is masked.
    """
    if isinstance(loader, Iterator):
        raise ValueError("loader can be read only once; give a DataLoader or a list of batches")
    digests, counts, length, whole = [], [], 0, hashlib.sha256()
    for number, batch in enumerate(loader):
        missing = [name for name in ("input_ids", "labels") if name not in batch]
        if missing:
            raise ValueError(f"batch {number} of the loader has no {missing[0]}; it must have input_ids and labels")
        largest = max(int(batch[name].max()) for name in ("input_ids", "labels"))
        if largest >= vocab_size:
            raise ValueError(
                f"batch {number} of the loader has the token {largest}, but the model has {vocab_size} embeddings; "
                "tokenise with the tokenizer of the checkpoint"
            )
        digests.append(_digest(batch))
        asked = batch["labels"] != IGNORED
        masked = torch.stack([batch[name][asked].cpu().to(torch.int64) for name in ("labels", "input_ids")], dim=1)
        whole.update(masked.numpy().tobytes())
        counts.append(np.bincount(_rows(batch), minlength=_num_rows(batch)))
        length = max(length, int(batch.get("max_length_q", batch["input_ids"].shape[1])))
    if not digests:
        raise ValueError("the loader is empty; give at least one batch")
    masked_tokens = np.concatenate(counts)
    if not masked_tokens.any():
        raise ValueError(f"no token of the {len(digests)} batches is masked: all labels are {IGNORED}")
    return MaskedBatches(digests, whole.hexdigest(), masked_tokens, length)


class LevelScores:
    """What one level scored.

    Attributes:
        nll (`list[np.ndarray]`): Summed negative log-likelihood (nats) of each row, a batch an entry.
        bins ([`CalibrationBins`]): Confidence and correctness of its predictions.
    """

    def __init__(self):
        self.nll: list[np.ndarray] = []
        self.bins = CalibrationBins()

    def add(self, logits: torch.Tensor, targets: torch.Tensor, rows: np.ndarray, num_rows: int) -> bool:
        """Adds the masked tokens of a batch; returns whether all are finite."""
        nll = []
        for scores, wanted in zip(logits.split(_CHUNK), targets.split(_CHUNK), strict=True):
            log_probabilities = scores.float().log_softmax(dim=-1)
            best, predicted = log_probabilities.max(dim=-1)
            nll.append(-log_probabilities.gather(-1, wanted[:, None])[:, 0].double().cpu())
            self.bins.update(best.double().exp().cpu().numpy(), (predicted == wanted).cpu().numpy())
        losses = torch.cat(nll).numpy()
        self.nll.append(np.bincount(rows, weights=losses, minlength=num_rows))
        return bool(np.isfinite(losses).all())


def score_levels(
    model: PreTrainedModel,
    loader: Iterable[Mapping[str, Any]],
    levels: Sequence[str],
    batches: MaskedBatches,
    *,
    progress: bool = True,
) -> dict[str, LevelScores]:
    """Scores every level on each batch while it is there, so that all see the same masks and none is kept.

    Args:
        model (`PreTrainedModel`): A nested masked language model.
        loader (`Iterable[Mapping]`): The batches.
        levels (`Sequence[str]`): Names of the levels.
        batches ([`MaskedBatches`]): What [`check_batches`] found in the loader.
        progress (`bool`, *optional*, defaults to `True`): Whether to show progress.

    Raises:
        ValueError: If the loader gives other batches than at the first look, or a level gives numbers that are not
            finite.
    """
    scores = {level: LevelScores() for level in levels}
    total = len(batches.digests) * len(levels)
    with evaluation_mode(model), tqdm(total=total, desc="Evaluating", disable=not progress) as bar:
        for number, (batch, digest) in enumerate(zip_longest(loader, batches.digests)):
            if batch is None or _digest(batch) != digest:
                raise ValueError(
                    f"batch {number} of the loader has other masks than when it was read before; write them once with "
                    "write_mask_file, and do not shuffle"
                )
            rows, num_rows = _rows(batch), _num_rows(batch)
            batch = send_to_device(dict(batch), model.device)
            labels = batch.pop("labels")
            if "segment_ids" in batch:
                batch = add_packed_mask(batch, model.config, model.dtype)
            asked = labels != IGNORED
            for level in levels:
                bar.update()
                if not len(rows):
                    scores[level].nll.append(np.zeros(num_rows))
                    continue
                if model.config.sparse_prediction:
                    logits = model(**batch, labels=labels, level=level).logits
                else:
                    logits = model(**batch, level=level).logits[asked]
                if not scores[level].add(logits, labels[asked], rows, num_rows):
                    raise ValueError(f"level {level} gives a loss that is not finite on batch {number} of the loader")
                del logits
    return scores


def _rows(batch: Mapping[str, Any]) -> np.ndarray:
    """For each masked token the row that it is in: of a flattened batch the document."""
    asked = batch["labels"].cpu() != IGNORED
    rows, columns = (index.numpy() for index in asked.nonzero(as_tuple=True))
    if "cu_seq_lens_q" in batch:
        return np.searchsorted(batch["cu_seq_lens_q"].cpu().numpy(), columns, side="right") - 1
    return rows


def _num_rows(batch: Mapping[str, Any]) -> int:
    return len(batch["cu_seq_lens_q"]) - 1 if "cu_seq_lens_q" in batch else batch["labels"].shape[0]


def _digest(batch: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in ("input_ids", "labels"):
        tensor = batch[name].cpu().to(torch.int64).contiguous()
        digest.update(f"{tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return digest.hexdigest()
