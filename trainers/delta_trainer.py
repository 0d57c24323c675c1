"""The trainer of Delta encoders: masked language modelling at every budget, the full one teaching the rest."""

from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from ..modeling.token_routing import TokenRouting
from .delta_arguments import DeltaTrainingArguments
from .depth_dropout import draw_layers
from .losses.knowledge_distillation import knowledge_distillation_loss
from .losses.masked_lm import masked_lm_losses, token_mean
from .losses.upgrade_hinge import upgrade_hinge_loss
from .tap_states import find_taps, tap_alignment, tap_residual, token_mask
from .three_phases import PhaseUpdates, PhaseWeights, oversampled, phase_weights
from .token_delta import draw_share, preview_loss, routing_penalty
from .token_mean_trainer import TokenMeanTrainer


logger = logging.get_logger(__name__)


class FullPass(NamedTuple):
    """What the levels of a training step share.

    Args:
        layers (`tuple[int, ...]`, *optional*): Layers that the full budget trains, if not all.
        output (`MaskedLMOutput`, *optional*): Of the whole full budget, with gradients if it is what the step trains.
        teacher_logits (`torch.Tensor`, *optional*): Of the teacher, at the labelled positions.
        teacher_states (`tuple[torch.Tensor]`, *optional*): Its hidden states, of one of the shape of the full budget.
    """

    layers: tuple[int, ...] | None
    output: MaskedLMOutput | None
    teacher_logits: torch.Tensor | None
    teacher_states: tuple[torch.Tensor, ...] | None


class LevelPass(NamedTuple):
    """A level's losses of the labelled tokens, and its hidden states."""

    token_losses: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] | None


class DeltaTrainer(TokenMeanTrainer):
    """Trains a [`DeltaBertForMaskedLM`] or [`DeltaModernBertForMaskedLM`] at all its budgets at once.

    By the sandwich rule (arXiv 1903.05134) a step runs the full budget, the smallest, and some between. The full one
    learns from the labels, with loss `CE`; every other one also from the predictions of the full one in the same step,
    without gradient, with loss `(CE + alpha_kd KD) / (1 + alpha_kd)`. The loss of the step is the mean over its
    budgets, weighted by `level_weights`: give the full one more where it must not lose to the small ones.

    Whatever the batches, a step is the mean over all labelled tokens of its micro-batches and processes. Not so some
    terms: alignment and the previews of token routing, means over all tokens, weigh a micro-batch by its labelled
    ones; the delta residual is a ratio of sums of a micro-batch; with maskings of their own, budgets weigh it by the
    labels of the first one.
    Evaluation reports `eval_loss_<level>`, the cross-entropy a labelled token of every budget, and `eval_loss`, their
    mean weighted by `level_weights`.

    In a step without the whole full budget, because `level_sampling="random"` did not draw it or depth dropout
    shortened it, it runs once more without gradient where it must teach: a shortened one would teach budgets larger
    than itself, and a pass without gradient costs a third of one with it. Logged as the loss of the full
    budget is that of the pass that is trained.

    Where a batch has several maskings (`PackedMlmCollator(maskings=...)`), the smaller budgets predict other tokens of
    its rows than the full one: what they share then learns of more tokens in a step, which is worth more than that
    their gradients agree.

    With `enable_three_phase` what is on, and how much it weighs, follows from the step ([`phase_weights`]).

    Args:
        teacher (`PreTrainedModel`, *optional*): A masked language model of the same vocabulary that takes the same
            batches. It teaches all budgets, also the full one, in its place. It is put in evaluation mode and frozen.
            If it has the layers and the hidden size of the full budget, the delta residual is that to its hidden
            states, too.
        kwargs: Arguments of `transformers.Trainer`. Batches come from `DataCollatorForLanguageModeling`, or from a
            [`PackedMlmCollator`] with the model's config; that one needs the callback [`MaskEpochs`]. The masks of the
            former are in no checkpoint: a run that resumes within an epoch gets others.

    Raises:
        ValueError: If arguments do not fit together or the model.
    """

    args: DeltaTrainingArguments

    def __init__(self, *args, teacher: PreTrainedModel | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.config = self.accelerator.unwrap_model(self.model).config
        self.full = len(self.levels) - 1
        self.budgets = [self.config.budget(level) for level in range(len(self.levels))]
        # Whether a teacher's hidden states are those that the full budget could have.
        self.teacher_fits = teacher is not None and all(
            getattr(teacher.config, name) == getattr(self.config, name)
            for name in ("hidden_size", "num_hidden_layers")
        )
        self._check_teacher(teacher)
        self.teacher = None if teacher is None else teacher.to(self.args.device).eval().requires_grad_(False)
        self.taps: dict[int, list[int]] = {}
        if self.args.enable_cscf or self.args.enable_delta_residual:
            self._set_taps()
        if self.args.enable_three_phase:
            self.add_callback(PhaseUpdates())
        self.routings: list[tuple[int, TokenRouting]] = []
        if self.args.enable_token_delta and not self.config.token_routing:
            raise ValueError("enable_token_delta needs a model with config.token_routing=True, which this one has not")
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
        in_place = in_place or (self.args.enable_delta_residual and not self.teacher_fits)
        if in_place and self.args.level_schedule == "ascending" and self.full > 0:
            raise ValueError(
                "level_schedule 'ascending' trains the full budget last, so that it has nothing to teach before: use "
                "'constant' or 'descending', or a teacher of its own, without enable_cscf and, unless it has the "
                "model's shape, enable_delta_residual"
            )

    def _set_taps(self) -> None:
        taps, self.taps = find_taps(self.config, self.args.tap_layers)
        clipped = [level for level, kept in self.taps.items() if len(kept) < len(taps)]
        if self.args.tap_layers and clipped:
            kept = ", ".join(f"{self.levels[level]} at {self.taps[level] or 'none'}" for level in clipped)
            logger.warning(f"A budget does not run all tap_layers and is aligned at those it does: {kept}.")
        # What is beyond the smallest level. In place, nothing is above the full one that it could explain.
        self.deltas = {level: kept for level, kept in self.taps.items() if level and kept}
        if self.teacher_fits and self.full:
            self.deltas[self.full] = taps
        self.deltas = {level: kept for level, kept in self.deltas.items() if self.config.fits_in(0, level)}
        if self.args.enable_delta_residual and not self.deltas:
            raise ValueError(
                "enable_delta_residual needs a budget between the smallest and the full one (with a tap layer), or a "
                f"teacher with {self.config.num_hidden_layers} layers of width {self.config.hidden_size}, but there "
                "is neither"
            )

    @property
    def phase(self) -> PhaseWeights:
        """What each part weighs in this step."""
        return phase_weights(self.state.global_step, self.state.max_steps, self.args)

    def _step_levels(self) -> list[int]:
        share = self.phase.oversample
        sampler = self.level_sampler if share is None else oversampled(self.level_sampler, share)
        return sampler.sample(self.state.global_step, self.progress)

    def prepare_step(self, model: nn.Module, inputs: dict[str, Any]) -> FullPass | None:
        """The full budget's pass and the teacher's predictions; `None` in evaluation."""
        if not model.training:
            return None
        self.routings = []
        levels, args, phase = self._step_levels(), self.args, self.phase
        layers = None
        if args.enable_delta_depth:
            depths = [budget.depth for budget in self.budgets]
            layers = draw_layers(
                args.seed,
                self.state.global_step,
                self.progress,
                self.config.layer_order or range(self.config.num_hidden_layers),
                depths,
                start=phase.depth_dropout,
                end=phase.depth_dropout,
                drop_path=args.drop_path,
            )
        output, teacher_logits, teacher_states = None, None, None
        in_place = phase.zeta_cscf or (phase.beta_delta and not self.teacher_fits)
        if self.full in levels and layers is None:
            output = self._run(model, inputs, self.full)
        elif levels != [self.full] and (in_place or (args.enable_kd and self.teacher is None)):
            output = self._without_gradient(model, inputs, self.full)
        if self.teacher is not None:
            taught = self._teach(inputs, output_hidden_states=self.teacher_fits and phase.beta_delta > 0)
            teacher_logits, teacher_states = at_labels(taught.logits, inputs["labels"]), taught.hidden_states
        elif args.enable_kd and output is not None:
            teacher_logits = at_labels(output.logits, inputs["labels"])
        return FullPass(layers, output, teacher_logits, teacher_states)

    def _run(
        self, model: nn.Module, inputs: dict[str, Any], level: int, layers: tuple[int, ...] | None = None
    ) -> MaskedLMOutput:
        kwargs = {}
        # What only teaches runs on all tokens, and so does a shortened full budget.
        if self.args.enable_token_delta and level and layers is None and model.training and torch.is_grad_enabled():
            share = draw_share(self.args.seed, self.state.global_step, self.args.token_shares)
            if self.phase.token_routing and share < 1:
                kwargs["routing"] = TokenRouting(share, self.phase.routing_temperature)
                self.routings.append((level, kwargs["routing"]))
        states = bool(self.taps)
        return model(**once(inputs), level=level, layers=layers, output_hidden_states=states, **kwargs)

    @torch.no_grad()
    def _teach(self, inputs: dict[str, Any], **kwargs) -> MaskedLMOutput:
        return self.teacher(**once(inputs), **kwargs)

    def _without_gradient(self, model: nn.Module, inputs: dict[str, Any], level: int) -> MaskedLMOutput:
        with torch.no_grad():
            output = self._run(model, inputs, level)
        # What autocast keeps of the weights in here may have no gradient (before torch 2.13 it has none).
        torch.clear_autocast_cache()
        return output

    def level_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        level: int,
        shared: FullPass | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> tuple[torch.Tensor, MaskedLMOutput | LevelPass]:
        """Loss of one level, a mean over the labelled tokens of the micro-batch; in evaluation the cross-entropy."""
        if shared is not None and level != self.full and "other_maskings" in inputs:
            inputs, shared = self._own_masking(model, inputs, level, shared)
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

    def _own_masking(
        self, model: nn.Module, inputs: dict[str, Any], level: int, shared: FullPass
    ) -> tuple[dict[str, Any], FullPass]:
        """The batch with the masks of a smaller level, and what the teacher says of those."""
        others = inputs["other_maskings"]
        if self.taps or self.args.enable_mug:
            raise ValueError(
                "budgets with masks of their own cannot be compared token by token: switch off enable_cscf, "
                "enable_mug and enable_delta_residual, or the maskings of the collator"
            )
        if len(others) < self.full:
            raise ValueError(
                f"a batch has {len(others) + 1} maskings, but there are {self.full + 1} budgets; let the collator "
                "make one for each"
            )
        inputs = {**once(inputs), **others[level]}
        if not self.args.enable_kd:
            return inputs, shared
        in_place = self.teacher is None
        taught = self._without_gradient(model, inputs, self.full) if in_place else self._teach(inputs)
        return inputs, shared._replace(teacher_logits=at_labels(taught.logits, inputs["labels"]))

    def tie_losses(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        outputs: dict[int, LevelPass],
        shared: FullPass | None = None,
    ) -> dict[str, torch.Tensor]:
        """Feature alignment (`cscf`), delta residual (`delta`), upgrade hinge (`mug`), and of token routing the loss
        of the previews (`preview`) and the budget penalty (`budget`), weighted; none in evaluation."""
        terms, phase = {}, self.phase
        if shared is None:
            return terms
        encoder, mask = self.accelerator.unwrap_model(self.model), token_mask(inputs)
        states = {level: level_pass.hidden_states for level, level_pass in outputs.items()}
        # A shortened full budget reaches nothing, and is not the larger one of any pair.
        whole = [level for level in outputs if level != self.full or shared.layers is None]
        aligned = {level: self.taps[level] for level in outputs if phase.zeta_cscf and self.taps.get(level)}
        if aligned:
            distance = tap_alignment(encoder, aligned, states, shared.output.hidden_states, mask)
            terms["cscf"] = phase.zeta_cscf * distance
        beyond = {level: self.deltas[level] for level in whole if phase.beta_delta and level in self.deltas}
        if beyond:
            base = states[0] if 0 in states else self._without_gradient(model, inputs, 0).hidden_states
            target = shared.teacher_states if self.teacher_fits else shared.output.hidden_states
            terms["delta"] = phase.beta_delta * tap_residual(encoder, beyond, states, base, target, mask)
        if phase.rho_mug:
            pairs = [(a, b) for a, b in combinations(whole, 2) if self.budgets[a].fits_in(self.budgets[b])]
            if pairs:
                losses = {level: outputs[level].token_losses for level in whole}
                terms["mug"] = phase.rho_mug * upgrade_hinge_loss(losses, pairs, self.args.mug_margin)
        routings = [(level, routing) for level, routing in self.routings if routing.shares]
        if routings:
            terms["preview"] = self.args.preview_weight * preview_loss(routings)
            if self.args.gamma_budget:
                length = inputs["input_ids"].shape[-1]
                terms["budget"] = self.args.gamma_budget * routing_penalty(encoder, routings, length)
        return terms

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "learning_rate" in logs:
            # That of the last step, as the schedule has it.
            done = phase_weights(self.state.global_step - 1, self.state.max_steps, self.args)
            logs["learning_rate"] *= done.learning_rate
        super().log(logs, start_time)

    def evaluation_loop(self, *args, metric_key_prefix: str = "eval", **kwargs) -> EvalLoopOutput:
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if f"{metric_key_prefix}_loss" in output.metrics:
            # Over tokens, as those of the levels; the base class has the mean of the batches.
            losses = [output.metrics[f"{metric_key_prefix}_loss_{name}"] for name in self.levels]
            weights = self.level_sampler.weights
            total = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
            output.metrics[f"{metric_key_prefix}_loss"] = total / sum(weights)
        return output


def once(inputs: dict[str, Any]) -> dict[str, Any]:
    """A batch with its first masking only, as models take it."""
    return {name: value for name, value in inputs.items() if name != "other_maskings"}


def at_labels(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The logits of the labelled positions; a model with `sparse_prediction` gives no others."""
    return logits if logits.ndim == 2 else logits[labels != -100]
