"""The trainer of Delta encoders: masked language modelling at every budget, the full one teaching the rest."""

from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from .delta_arguments import DeltaTrainingArguments
from .depth_dropout import draw_layers
from .losses.feature_alignment import feature_alignment_loss
from .losses.knowledge_distillation import knowledge_distillation_loss
from .losses.masked_lm import masked_lm_losses, token_mean
from .losses.upgrade_hinge import upgrade_hinge_loss
from .matryoshka_trainer import MatryoshkaTrainer


logger = logging.get_logger(__name__)


class FullPass(NamedTuple):
    """What the levels of a training step share.

    Args:
        layers (`tuple[int, ...]`, *optional*): Layers that the full budget trains, if not all.
        output (`MaskedLMOutput`, *optional*): Of the whole full budget, with gradients if it is what the step trains.
        teacher_logits (`torch.Tensor`, *optional*): Of the teacher, at the labelled positions.
    """

    layers: tuple[int, ...] | None
    output: MaskedLMOutput | None
    teacher_logits: torch.Tensor | None


class LevelPass(NamedTuple):
    """A level's losses of the labelled tokens, and its hidden states."""

    token_losses: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] | None


class DeltaTrainer(MatryoshkaTrainer):
    """Trains a [`DeltaBertForMaskedLM`] or [`DeltaModernBertForMaskedLM`] at all its budgets at once.

    By the sandwich rule (arXiv 1903.05134) a step runs the full budget, the smallest, and some between. The full one
    learns from the labels, with loss `CE`; every other one also from the predictions of the full one in the same step,
    without gradient, with loss `(CE + alpha_kd KD) / (1 + alpha_kd)`. The loss of the step is the mean over its
    budgets, weighted by `level_weights`: give the full one more where it must not lose to the small ones.

    Whatever the batches, a step is the mean over all labelled tokens of its micro-batches and processes.
    Evaluation reports `eval_loss_<level>`, the cross-entropy a labelled token of every budget, and `eval_loss`, their
    mean weighted by `level_weights`.

    In a step without the whole full budget, because `level_sampling="random"` did not draw it or depth dropout
    shortened it, it runs once more without gradient where it must teach: a shortened one would teach budgets larger
    than itself, and a pass without gradient costs a third of one with it. Logged as the loss of the full
    budget is that of the pass that is trained.

    Args:
        teacher (`PreTrainedModel`, *optional*): A masked language model of the same vocabulary that takes the same
            batches. It teaches all budgets, also the full one, in its place. It is put in evaluation mode and frozen.
        kwargs: Arguments of `transformers.Trainer`. Batches come from `DataCollatorForLanguageModeling`, or from a
            [`PackedMlmCollator`] with the model's config; that one needs the callback [`MaskEpochs`].

    Raises:
        ValueError: If arguments do not fit together or the model.
    """

    args: DeltaTrainingArguments
    # As in `transformers.Trainer`: scaled where `num_items_in_batch` is known, see `compute_loss`.
    loss_is_scaled_for_ga = None

    def __init__(self, *args, teacher: PreTrainedModel | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.config = self.accelerator.unwrap_model(self.model).config
        self.full = len(self.levels) - 1
        self.budgets = [self.config.budget(level) for level in range(len(self.levels))]
        self._check_teacher(teacher)
        self.teacher = None if teacher is None else teacher.to(self.args.device).eval().requires_grad_(False)
        self.taps = self._find_taps() if self.args.enable_cscf else {}
        depth = self.budgets[-1].depth
        if self.args.enable_delta_depth and all(budget.depth == depth for budget in self.budgets):
            raise ValueError(
                f"enable_delta_depth shortens the full budget to the depth of a smaller one, but all have {depth} "
                "layers"
            )

    def _check_teacher(self, teacher: PreTrainedModel | None) -> None:
        if teacher is not None and not self.args.enable_kd:
            raise ValueError("a teacher needs enable_kd=True, but it is False")
        if teacher is not None and teacher.config.vocab_size != self.config.vocab_size:
            raise ValueError(
                f"the teacher has a vocabulary of {teacher.config.vocab_size} tokens, the model one of "
                f"{self.config.vocab_size}; their predictions can be compared only over the same tokens"
            )
        in_place = self.args.enable_cscf or (self.args.enable_kd and teacher is None)
        if in_place and self.args.level_schedule == "ascending" and self.full > 0:
            raise ValueError(
                "level_schedule 'ascending' trains the full budget last, so that it has nothing to teach before: use "
                "'constant' or 'descending', or a teacher of its own and enable_cscf=False"
            )

    def _find_taps(self) -> dict[int, list[int]]:
        """The layers at which each smaller level is aligned."""
        depth, given = self.budgets[-1].depth, self.args.tap_layers
        layers = [self.config.level_sizes(level).layers for level in range(len(self.levels))]
        for tap in given or []:
            if not 0 <= tap < depth:
                raise ValueError(f"tap_layers has {tap}, but the model has the layers 0 to {depth - 1}")
        taps = sorted(set(given or [run[-1] for run in layers]))
        found = {level: [tap for tap in taps if tap in layers[level]] for level in range(self.full)}
        clipped = [level for level, kept in found.items() if len(kept) < len(taps)]
        if given and clipped:
            kept = ", ".join(f"{self.levels[level]} at {found[level] or 'none'}" for level in clipped)
            logger.warning(f"A budget does not run all tap_layers and is aligned at those it does: {kept}.")
        return found

    def batch_weight(self, inputs: dict[str, Any]) -> torch.Tensor:
        return (inputs["labels"] != -100).sum()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ):
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

    def prepare_step(self, model: nn.Module, inputs: dict[str, Any]) -> FullPass | None:
        """The full budget's pass and the teacher's predictions; `None` in evaluation."""
        if not model.training:
            return None
        levels, args = self._step_levels(), self.args
        layers = None
        if args.enable_delta_depth:
            depths = [budget.depth for budget in self.budgets]
            layers = draw_layers(
                args.seed,
                self.state.global_step,
                self.progress,
                self.config.layer_order or range(self.config.num_hidden_layers),
                depths,
                start=args.depth_dropout,
                end=args.depth_dropout_end,
                drop_path=args.drop_path,
            )
        output, teacher_logits = None, None
        if self.full in levels and layers is None:
            output = self._run(model, inputs, self.full)
        elif levels != [self.full] and (args.enable_cscf or (args.enable_kd and self.teacher is None)):
            with torch.no_grad():
                output = self._run(model, inputs, self.full)
            # What autocast keeps of the weights in here may have no gradient (before torch 2.13 it has none).
            torch.clear_autocast_cache()
        if self.teacher is not None:
            with torch.no_grad():
                teacher_logits = at_labels(self.teacher(**inputs).logits, inputs["labels"])
        elif args.enable_kd and output is not None:
            teacher_logits = at_labels(output.logits, inputs["labels"])
        return FullPass(layers, output, teacher_logits)

    def _run(
        self, model: nn.Module, inputs: dict[str, Any], level: int, layers: tuple[int, ...] | None = None
    ) -> MaskedLMOutput:
        return model(**inputs, level=level, layers=layers, output_hidden_states=bool(self.taps))

    def level_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        level: int,
        shared: FullPass | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> tuple[torch.Tensor, MaskedLMOutput | LevelPass]:
        """Loss of one level, a mean over the labelled tokens of the micro-batch; in evaluation the cross-entropy."""
        labels, is_full = inputs["labels"], level == self.full
        if shared is not None and is_full and shared.layers is None:
            output = shared.output
        else:
            output = self._run(model, inputs, level, shared.layers if shared is not None and is_full else None)
        logits = at_labels(output.logits, labels)
        losses = masked_lm_losses(logits, labels[labels != -100])
        loss = token_mean(losses)
        if shared is None:
            return loss, output
        if self.args.enable_kd and not (is_full and self.teacher is None):
            share = self.args.alpha_kd / (1 + self.args.alpha_kd)
            distilled = knowledge_distillation_loss(logits, shared.teacher_logits, self.args.kd_temperature)
            loss = (1 - share) * loss + share * distilled
        return loss, LevelPass(losses, output.hidden_states)

    def tie_losses(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        outputs: dict[int, LevelPass],
        shared: FullPass | None = None,
    ) -> dict[str, torch.Tensor]:
        """Feature alignment (`cscf`) and upgrade hinge (`mug`), weighted; none in evaluation."""
        terms = {}
        if shared is None:
            return terms
        aligned = [self._alignment(inputs, level, outputs[level], shared) for level in outputs if self.taps.get(level)]
        if aligned:
            terms["cscf"] = self.args.zeta_cscf * torch.stack(aligned).mean()
        if self.args.enable_mug:
            # A shortened full budget is not the larger one of any pair.
            whole = [level for level in outputs if level != self.full or shared.layers is None]
            pairs = [(a, b) for a, b in combinations(whole, 2) if self.budgets[a].fits_in(self.budgets[b])]
            if pairs:
                losses = {level: outputs[level].token_losses for level in whole}
                terms["mug"] = self.args.rho_mug * upgrade_hinge_loss(losses, pairs, self.args.mug_margin)
        return terms

    def _alignment(self, inputs: dict[str, Any], level: int, level_pass: LevelPass, shared: FullPass) -> torch.Tensor:
        encoder = self.accelerator.unwrap_model(self.model)
        layers, last = self.config.level_sizes(level).layers, self.config.num_hidden_layers - 1
        states, targets = [], []
        for tap in self.taps[level]:
            state, target = level_pass.hidden_states[layers.index(tap) + 1], shared.output.hidden_states[tap + 1]
            if tap == layers[-1] < last:
                # The level ends here, which may add a norm that is not between the layers of the full budget.
                with torch.no_grad():
                    target = encoder.exit_states(target[..., : state.shape[-1]])
            states.append(state)
            targets.append(target)
        # Packed rows have no such mask; there all but the few positions after the last document are real tokens.
        mask = inputs.get("attention_mask")
        is_mask = isinstance(mask, torch.Tensor) and mask.ndim == 2
        return feature_alignment_loss(states, targets, mask.bool() if is_mask else None)

    def evaluation_loop(self, *args, metric_key_prefix: str = "eval", **kwargs) -> EvalLoopOutput:
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if f"{metric_key_prefix}_loss" in output.metrics:
            # Over tokens, as those of the levels; the base class has the mean of the batches.
            losses = [output.metrics[f"{metric_key_prefix}_loss_{name}"] for name in self.levels]
            weights = self.level_sampler.weights
            total = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
            output.metrics[f"{metric_key_prefix}_loss"] = total / sum(weights)
        return output


def at_labels(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The logits of the labelled positions; a model with `sparse_prediction` gives no others."""
    return logits if logits.ndim == 2 else logits[labels != -100]
