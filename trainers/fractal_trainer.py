"""The trainer of FractalFormers: all dolls in one step, each on its own stream of the data."""

from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import CausalLMOutputWithPast

from .gpt_trainer import MatryoshkaGPTTrainer


class FractalTrainer(MatryoshkaGPTTrainer):
    """Trains a [`FractalFormerForCausalLM`] at all dolls in one step.

    A batch has `streams (batch,)`, the number of the smallest doll that each row belongs to; a doll sees the rows of
    all dolls inside it, the whole model sees all rows. So each depth sees each row once: with half the width at each
    depth a step costs 1 + 1/4 + 1/16 of what the whole model alone does. A doll that no row of a batch belongs to
    does not take part in it. Rows of evaluation have streams, too: a doll is scored on its own.

    The loss of a micro-batch is the mean over the depths of the mean over the dolls of a depth, unless `level_weights`
    says otherwise. So micro-batches and processes take the step of one large batch where each of them has rows of all
    streams in the same shares; else they are weighed by their tokens.

    Args:
        args, kwargs: As those of [`MatryoshkaGPTTrainer`].

    Raises:
        ValueError: If a level is drawn or taught in another way, or a batch has no streams or one that no doll has.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for name, value in (("level_sampling", "all"), ("level_schedule", "constant"), ("kd_weight", 0.0)):
            if getattr(self.args, name) != value:
                raise ValueError(f"a FractalFormer is trained with {name} {value!r}: dolls differ by their rows")
        if self.args.split_batch:
            raise ValueError("a FractalFormer splits its batches by streams; leave split_batch out")
        config = self.accelerator.unwrap_model(self.model).config
        self.places = [config.place(level) for level in self.levels]
        self.children, self.depth = config.children, config.depth
        if self.args.level_weights is None:
            self.level_sampler.weights = [1 / self.children**depth for depth, _ in self.places]
        self._present = list(range(len(self.levels)))

    def _rows(self, streams: torch.Tensor, level: int) -> torch.Tensor:
        depth, place = self.places[level]
        return streams // self.children ** (self.depth - 1 - depth) == place

    def batch_levels(self, training: bool) -> list[int]:
        return self._present

    def level_weight(self, inputs: dict[str, Any], level: int) -> torch.Tensor:
        return self.batch_weight({"labels": inputs["labels"][self._rows(inputs["streams"], level)]})

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        streams, count = inputs.get("streams"), self.children ** (self.depth - 1)
        if streams is None:
            raise ValueError("rows have no column 'stream', the number of the smallest doll that each belongs to")
        if int(streams.min()) < 0 or int(streams.max()) >= count:
            raise ValueError(
                f"streams are numbered from 0 to {count - 1}, one a smallest doll, but there is one with the number "
                f"{int(streams.max()) if int(streams.max()) >= count else int(streams.min())}"
            )
        self._present = [level for level in range(len(self.levels)) if self._rows(streams, level).any()]
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def level_loss(
        self, model: nn.Module, inputs: dict[str, Any], level: int, *args: Any
    ) -> tuple[torch.Tensor, CausalLMOutputWithPast]:
        rows = self._rows(inputs["streams"], level)
        own = {name: value[rows] for name, value in inputs.items() if name != "streams"}
        return super().level_loss(model, own, level, *args)
