"""The trainer under all trainers: runs the levels of a step, adds up their losses, logs each under its name."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import Dataset, Sampler
from transformers.trainer_pt_utils import BatchRebalanceSampler, LengthGroupedSampler
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from .length_groups import EpochLengthGroupedSampler
from .level_sampler import LevelSampler
from .process_rows import gather_rows
from .whole_checkpoints import WholeCheckpointsTrainer


class MatryoshkaTrainer(WholeCheckpointsTrainer):
    """A `transformers.Trainer` for models with levels.

    A subclass says what the loss of one level is ([`level_loss`]), and optionally what is computed once a step
    ([`prepare_step`]) and which terms tie the levels together ([`tie_losses`]). The loss of a step is the weighted
    mean of its levels' losses plus the tie terms. Training logs `loss_<level>` and every tie term; evaluation runs
    every level and reports `eval_loss_<level>`.

    The default [`level_loss`] calls the model with `level=` and takes its `loss`.

    `model.config` must have `levels` (see `hf_matryoshka.modeling.levels.LevelsMixin`).
    """

    # The mean over a micro-batch; with None, as in `transformers.Trainer`, a subclass that is given
    # `num_items_in_batch` must divide by it.
    loss_is_scaled_for_ga = False
    _train_sampler: Sampler | None = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.levels: tuple[str, ...] = self.accelerator.unwrap_model(self.model).config.levels
        self.level_sampler = LevelSampler(len(self.levels), self.args)
        self._training_terms = TermMeans()
        self._evaluation_terms = TermMeans()

    @property
    def progress(self) -> float:
        """Part of the training that is done, from 0 to 1."""
        return self.state.global_step / max(1, self.state.max_steps)

    def batch_weight(self, inputs: dict[str, Any]) -> torch.Tensor | float:
        """How much a micro-batch counts in the means that are logged; the number of tokens of a loss over tokens."""
        return 1.0

    def level_weight(self, inputs: dict[str, Any], level: int) -> torch.Tensor | float:
        """How much a micro-batch counts in the logged mean of a level, where levels see different rows."""
        return self.batch_weight(inputs)

    def batch_levels(self, training: bool) -> Sequence[int]:
        """The levels that a batch is computed at."""
        return self._step_levels() if training else range(len(self.levels))

    def prepare_step(self, model: nn.Module, inputs: dict[str, Any]) -> Any:
        """What the levels of a step share, for example a teacher's output; handed to every [`level_loss`]."""
        return None

    def level_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        level: int,
        shared: Any = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> tuple[torch.Tensor, Any]:
        """Loss of one level, a mean over the micro-batch, and its outputs (for [`tie_losses`])."""
        outputs = model(**inputs, level=level)
        return outputs.loss, outputs

    def tie_losses(
        self, model: nn.Module, inputs: dict[str, Any], outputs: dict[int, Any], shared: Any = None
    ) -> dict[str, torch.Tensor]:
        """Terms over several levels, already weighted, by the name under which they are logged."""
        return {}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        terms = self._training_terms if model.training else self._evaluation_terms
        levels = self.batch_levels(model.training)
        shared, counted = self.prepare_step(model, inputs), self.batch_weight(inputs)
        weights, losses, outputs = [], [], {}
        for level in levels:
            loss, outputs[level] = self.level_loss(model, inputs, level, shared, num_items_in_batch)
            terms.add(f"loss_{self.levels[level]}", loss, self.level_weight(inputs, level))
            weights.append(self.level_sampler.weights[level])
            losses.append(loss)
        # By the mean weight of all levels, not of those drawn: else a level that is drawn alone would have no weight.
        scale = len(losses) * sum(self.level_sampler.weights) / len(self.levels)
        total = sum(weight * loss for weight, loss in zip(weights, losses, strict=True)) / scale
        for name, term in self.tie_losses(model, inputs, outputs, shared).items():
            terms.add(name, term, counted)
            total = total + term
        return (total, outputs[max(outputs)]) if return_outputs else total

    def all_rows(self, rows: torch.Tensor, model: nn.Module) -> torch.Tensor:
        """The rows of all processes in training, for losses that compare rows ([`gather_rows`]); else `rows`."""
        return gather_rows(rows, self.accelerator) if model.training else rows

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        sampler = super()._get_train_sampler(train_dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        if type(sampler) is LengthGroupedSampler:
            sampler = EpochLengthGroupedSampler(sampler.batch_size, sampler.lengths, seed)
        elif isinstance(sampler, BatchRebalanceSampler):
            sampler.seed = seed
        self._train_sampler = sampler
        return sampler

    def _run_epoch(self, model: nn.Module, epoch: int, *args: Any, **kwargs: Any) -> None:
        # Accelerate says it to samplers, too, but not to all of them in a run that resumes on several processes.
        if hasattr(self._train_sampler, "set_epoch"):
            self._train_sampler.set_epoch(epoch)
        super()._run_epoch(model, epoch, *args, **kwargs)

    def train(self, *args, **kwargs) -> TrainOutput:
        try:
            return super().train(*args, **kwargs)
        finally:
            # Accelerate leaves `forward` under autocast: what follows, such as an export and its comparison, would
            # still compute in half precision.
            self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)

    def _step_levels(self) -> list[int]:
        return self.level_sampler.sample(self.state.global_step, self.progress)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            found = self._training_terms.pop(self.accelerator)
            self._check_losses(found)
            logs.update(found)
        super().log(logs, start_time)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._check_losses({name: float(total) for name, total in self._training_terms.sums.items()})
        super()._save_checkpoint(model, trial)

    def _check_losses(self, losses: dict[str, float]) -> None:
        """Raise `ValueError` if that of a level is NaN: by then the weights are, too, and nothing is to be saved."""
        for name, loss in losses.items():
            if name.startswith("loss_") and math.isnan(loss):
                raise ValueError(
                    f"{name} is NaN by step {self.state.global_step}: give a smaller learning_rate, or look for NaN "
                    "in the data; checkpoints from before are kept"
                )

    def evaluation_loop(self, *args, metric_key_prefix: str = "eval", **kwargs) -> EvalLoopOutput:
        self._evaluation_terms = TermMeans()
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        for name, value in self._evaluation_terms.pop(self.accelerator).items():
            output.metrics[f"{metric_key_prefix}_{name}"] = value
        return output


class TermMeans:
    """Running weighted means of named loss terms, over all processes when read."""

    def __init__(self):
        self.sums: dict[str, torch.Tensor] = {}
        self.weights: dict[str, torch.Tensor] = {}

    def add(self, name: str, value: torch.Tensor, weight: torch.Tensor | float = 1.0) -> None:
        value = value.detach().float().mean()
        weight = torch.as_tensor(weight, dtype=value.dtype, device=value.device)
        self.sums[name] = self.sums.get(name, 0) + value * weight
        self.weights[name] = self.weights.get(name, 0) + weight

    def pop(self, accelerator: Accelerator) -> dict[str, float]:
        """The means since the last call."""
        names = list(self.sums)
        if accelerator.num_processes > 1:
            # Also those of one process only, whose batches may have levels of their own.
            names = list(dict.fromkeys(gather_object(names)))
        if not names:
            return {}
        zero = torch.zeros((), device=accelerator.device)
        pairs = [torch.stack([self.sums.get(name, zero), self.weights.get(name, zero)]) for name in names]
        found = accelerator.reduce(torch.stack(pairs)).tolist()
        self.sums, self.weights = {}, {}
        return {name: round(total / max(weight, 1e-12), 6) for name, (total, weight) in zip(names, found, strict=True)}
