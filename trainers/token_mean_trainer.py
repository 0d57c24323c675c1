"""The trainer under those whose loss is a mean over tokens."""

from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .matryoshka_trainer import MatryoshkaTrainer


class TokenMeanTrainer(MatryoshkaTrainer):
    """A [`MatryoshkaTrainer`] whose step is the mean over all labelled tokens of its micro-batches and processes,
    whatever the batches. A level's loss is the mean over those of one micro-batch.
    """

    # As in `transformers.Trainer`: scaled where `num_items_in_batch` is known, see `compute_loss`.
    loss_is_scaled_for_ga = None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # What this process has used in the step so far.
        self._used: set[int] = set()
        if self.accelerator.num_processes > 1:
            self.add_callback(UnusedGradients(self))

    def drop_unused_gradients(self) -> None:
        """Takes the gradient, which is 0, from parameters that no process has used in the step: as in one process, an
        optimizer then leaves them alone instead of going on with their momentum and weight decay."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        own = torch.tensor([float(id(parameter) in self._used) for parameter in trained])
        counts = self.accelerator.reduce(own.to(self.accelerator.device)).tolist()
        for parameter, count in zip(trained, counts, strict=True):
            # Recomputed activations may hide parameters that were used.
            if not count and parameter.grad is not None and not parameter.grad.any():
                parameter.grad = None
        self._used = set()

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
            self._used |= used_parameters(loss)
            # Processes wait for the gradient of every parameter, also of one that no level of the step uses.
            loss = loss + 0 * sum(parameter.sum() for parameter in model.parameters() if parameter.requires_grad)
        return (loss, outputs) if return_outputs else loss


class UnusedGradients(TrainerCallback):
    """Calls [`TokenMeanTrainer.drop_unused_gradients`] before each step of the optimizer."""

    def __init__(self, trainer: TokenMeanTrainer):
        self.trainer = trainer

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.drop_unused_gradients()


def used_parameters(loss: torch.Tensor) -> set[int]:
    """Identities of the parameters that a loss depends on."""
    seen, waiting, found = set(), [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        waiting += [function for function, _ in node.next_functions]
    return found
