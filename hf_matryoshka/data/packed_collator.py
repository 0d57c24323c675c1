"""Batches of packed rows for masked language modelling."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import DataCollatorForLanguageModeling, TrainerCallback

from .packing_info import check_vocabulary
from .packing_masks import (
    flash_attention_inputs,
    packed_attention_mask,
    packed_position_ids,
    segment_ids,
    takes_bounds,
)


if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase, TrainerControl, TrainerState, TrainingArguments


class PackedMlmCollator:
    """Masks packed rows and keeps their documents apart.

    Tokens are masked after packing, by `DataCollatorForLanguageModeling`; what is drawn for a row depends on the seed,
    the epoch and its tokens alone. It is the same in any batch, in any worker and after a restart, and another in the
    next epoch ([`MaskEpochs`] tells the collator which one it is). Special tokens are never masked.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            The tokenizer that the rows were packed with.
        config (`PreTrainedConfig`, *optional*):
            Config of the model (from a loaded model, which knows its attention). With it a batch holds what a stock
            model takes: an `attention_mask` for eager, sdpa and flex attention, or one row without padding and the
            bounds of its sequences for flash attention and `"packed_sdpa"`, which is faster where rows are long.
            Without it a batch holds `segment_ids`, from which [`~data.packing_masks.add_packed_mask`] makes the mask
            on the device.
        mlm_probability (`float`, *optional*, defaults to 0.3):
            Share of the tokens to predict, as in ModernBERT (arXiv 2412.13663).
        mask_replace_prob (`float`, *optional*, defaults to 0.8):
            Share of them that become the mask token.
        random_replace_prob (`float`, *optional*, defaults to 0.1):
            Share of them that become a random token; the others stay.
        maskings (`int`, *optional*, defaults to 1):
            How often each row is masked, by draws of their own: a nested model learns more of a row if each of its
            levels predicts other tokens of it. All but the first are under `other_maskings` of a batch.
        seed (`int`, *optional*, defaults to 0):
            Seed of the draws.
        pad_to_multiple_of (`int`, *optional*):
            Rows are padded to the longest of the batch, rounded up to a multiple of this.
        position_ids_start (`int`, *optional*, defaults to 0):
            Position of the first token of a document: `pad_token_id + 1` for RoBERTa and its kin.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`):
            What the model computes in; only eager attention needs it.

    Raises:
        ValueError: if the tokenizer has no mask or padding token or more tokens than the model, or a share is not
            between 0 and 1.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        config: "PreTrainedConfig | None" = None,
        *,
        mlm_probability: float = 0.3,
        mask_replace_prob: float = 0.8,
        random_replace_prob: float = 0.1,
        maskings: int = 1,
        seed: int = 0,
        pad_to_multiple_of: int | None = None,
        position_ids_start: int = 0,
        dtype: torch.dtype = torch.float32,
    ):
        if tokenizer.mask_token_id is None or tokenizer.pad_token_id is None:
            raise ValueError(
                "masked language modelling needs a tokenizer with a mask token and a padding token, got mask token "
                f"{tokenizer.mask_token!r} and padding token {tokenizer.pad_token!r}"
            )
        if config is not None:
            check_vocabulary(len(tokenizer), config)
        self.masker = DataCollatorForLanguageModeling(
            tokenizer,
            mlm_probability=mlm_probability,
            mask_replace_prob=mask_replace_prob,
            random_replace_prob=random_replace_prob,
        )
        if maskings < 1:
            raise ValueError(f"maskings must be at least 1, but is {maskings}")
        self.config = config
        self.maskings = maskings
        self.pad_token_id = tokenizer.pad_token_id
        self.special_ids = torch.tensor(tokenizer.all_special_ids)
        self.seed = seed
        # Workers that outlive an epoch share it.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self.multiple = pad_to_multiple_of or 1
        self.position_ids_start = position_ids_start
        self.dtype = dtype

    @property
    def epoch(self) -> int:
        """The epoch of the next batches: it decides which tokens are masked."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch begins."""
        self._epoch.fill_(epoch)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collates rows of a packed data set.

        Args:
            rows (`Sequence[Mapping]`):
                Rows with `input_ids` and `seq_lengths`.

        Returns:
            `dict`: `input_ids`, `labels` (-100 where nothing is to predict) and `position_ids` of shape `(batch,
            length)`, and with them `attention_mask`, `segment_ids` or the bounds of the sequences (see `config`);
                with `maskings` also `other_maskings`, a list of `dict`s with further `input_ids` and `labels`.

        Raises:
            ValueError: if a row has no such fields, they contradict each other, or a document is longer than the
                model has positions.
        """
        lengths = [self._check(row) for row in rows]
        length = -(-max(map(sum, lengths)) // self.multiple) * self.multiple
        texts = [torch.as_tensor(row["input_ids"], dtype=torch.int64) for row in rows]
        masked, *others = (self._masked(texts, length, number) for number in range(self.maskings))
        positions = {"position_ids": packed_position_ids(lengths, length, self.position_ids_start)}
        if self.config is not None and takes_bounds(self.config):
            inputs: dict[str, Any] = flash_attention_inputs(masked | positions, lengths)
            flat = [flash_attention_inputs(other, lengths) for other in others]
            further: list[Any] = [{name: other[name] for name in masked} for other in flat]
        else:
            segments = segment_ids(lengths, length)
            inputs, further = {**masked, **positions}, others
            if self.config is None:
                inputs["segment_ids"] = segments
            else:
                inputs["attention_mask"] = packed_attention_mask(self.config, segments, self.dtype)
        return inputs | {"other_maskings": further} if further else inputs

    def _masked(self, texts: list[torch.Tensor], length: int, number: int) -> dict[str, torch.Tensor]:
        input_ids = torch.full((len(texts), length), self.pad_token_id)
        labels = torch.full((len(texts), length), -100)
        for row, tokens in enumerate(texts):
            input_ids[row, : len(tokens)], labels[row, : len(tokens)] = self._mask(tokens, number)
        return {"input_ids": input_ids, "labels": labels}

    def _check(self, row: Mapping[str, Any]) -> list[int]:
        if not {"input_ids", "seq_lengths"} <= set(row):
            raise ValueError(
                f"a packed row needs input_ids and seq_lengths, got {', '.join(sorted(row))}; pack the texts, and set "
                "remove_unused_columns=False for a Trainer"
            )
        lengths = [int(length) for length in row["seq_lengths"]]
        if sum(lengths) != len(row["input_ids"]):
            raise ValueError(f"the sequences of a row have {sum(lengths)} tokens, the row {len(row['input_ids'])}")
        positions = getattr(self.config, "max_position_embeddings", None)
        if positions is not None and max(lengths) + self.position_ids_start > positions:
            raise ValueError(
                f"a document has {max(lengths)} tokens, but the model has {positions - self.position_ids_start} "
                "positions; pack the texts with a smaller max_length"
            )
        return lengths

    def _mask(self, tokens: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        draw = f"{self.seed} {self.epoch} " + (f"{number} " if number else "")
        digest = hashlib.sha256(draw.encode() + tokens.numpy().astype(np.int32).tobytes())
        seed = int.from_bytes(digest.digest()[:8], "little", signed=True)
        self.masker.generator = torch.Generator().manual_seed(seed)
        special = torch.isin(tokens, self.special_ids)[None]
        masked, labels = self.masker.torch_mask_tokens(tokens[None].clone(), special_tokens_mask=special)
        return masked[0], labels[0]


class MaskEpochs(TrainerCallback):
    """Tells a [`PackedMlmCollator`] the epoch, so that a `Trainer` draws other masks in each, and the same ones again
    when it resumes.

    Args:
        collator ([`PackedMlmCollator`]): The collator of the training batches.
    """

    def __init__(self, collator: PackedMlmCollator):
        self.collator = collator

    def on_epoch_begin(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs
    ) -> None:
        self.collator.set_epoch(int(state.epoch or 0))
