"""The trainer under those whose loss is a mean over tokens."""

from typing import Any

import torch
from torch import nn

from .matryoshka_trainer import MatryoshkaTrainer


class TokenMeanTrainer(MatryoshkaTrainer):
    """A [`MatryoshkaTrainer`] whose step is the mean over all labelled tokens of its micro-batches and processes,
    whatever the batches. A level's loss is the mean over those of one micro-batch.
    """

    # As in `transformers.Trainer`: scaled where `num_items_in_batch` is known, see `compute_loss`.
    loss_is_scaled_for_ga = None

    def batch_weight(self, inputs: dict[str, Any]) -> torch.Tensor:
        """The labelled tokens of a micro-batch."""
        return (inputs["labels"] != -100).sum()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if model.training and num_items_in_batch is not None:
            # Every term is a mean over this micro-batch: its share of the step makes the sum the mean over the step.
            share = self.batch_weight(inputs) / num_items_in_batch
            if self.args.average_tokens_across_devices:
                # The items are those of all processes, over which the gradients will be averaged.
                share = share * self.accelerator.num_processes
            loss = loss * share
        if model.training and self.accelerator.num_processes > 1:
            # Processes wait for the gradient of every parameter, also of one that no level of the step uses.
            loss = loss + 0 * sum(parameter.sum() for parameter in model.parameters() if parameter.requires_grad)
        return (loss, outputs) if return_outputs else loss
