"""Batches of examples of about the same length, in an order that a resumed run finds again."""

from collections.abc import Iterator, Sequence

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler


class EpochLengthGroupedSampler(LengthGroupedSampler):
    """Draws the order of an epoch from the seed and the number of the epoch alone.

    `LengthGroupedSampler` draws it from the random state at the beginning of the epoch, which is another one in a run
    that resumes there: from the second epoch on it would be given the batches of the first again.

    Args:
        batch_size (`int`): Examples of a step.
        lengths (`Sequence[int]`): Of all examples.
        seed (`int`): Of the order.
    """

    def __init__(self, batch_size: int, lengths: Sequence[int], seed: int):
        super().__init__(batch_size, lengths=list(lengths), generator=torch.Generator())
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch that begins."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch)
        return super().__iter__()
