"""Three phases of a training: packing, residualisation, calibration."""

from copy import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState

from ..modeling.budgeted_model import PREVIEW
from .delta_arguments import DeltaTrainingArguments
from .depth_dropout import depth_dropout_rate
from .level_sampler import LevelSampler


Phase = Literal["packing", "residualisation", "calibration"]


@dataclass(frozen=True)
class PhaseWeights:
    """What the objectives of [`DeltaTrainer`] weigh in one step. A part that is not enabled weighs nothing.

    Args:
        phase (`str` or `None`): `"packing"`, `"residualisation"` or `"calibration"`; `None` in a training without
            phases.
        depth_dropout (`float`): Chance that the full budget is shortened.
        oversample (`float` or `None`): How often the smallest budget is drawn where budgets are drawn at random;
            `None` for what the arguments say.
        learning_rate (`float`): Factor on the learning rate of the schedule.
        base_lr (`float`): Further factor for what the smallest budget reads of each weight.
        beta_delta, zeta_cscf, rho_mug (`float`): Weights of the delta residual, the alignment and the hinge.
        token_routing (`bool`): Whether what lies beyond the smallest budget may be computed for some tokens only.
        routing_temperature (`float`): How soft the choice of these tokens is.
    """

    phase: Phase | None
    depth_dropout: float
    oversample: float | None
    learning_rate: float
    base_lr: float
    beta_delta: float
    zeta_cscf: float
    rho_mug: float
    token_routing: bool
    routing_temperature: float


def phase_weights(step: int, max_steps: int, args: DeltaTrainingArguments) -> PhaseWeights:
    """The weights of a step: a pure function of the step, so that a resumed run has those of an uninterrupted one.

    With `enable_three_phase`, at the default boundaries:

    | | packing, 0-33% | residualisation, 33-66% | calibration, 66-100% |
    |---|---|---|---|
    | depth dropout | `depth_dropout` | falls to `depth_dropout_end` | `depth_dropout_end` |
    | smallest budget | drawn with `oversample_smallest` | as the arguments say | as the arguments say |
    | learning rate | of the schedule | of the base times `base_lr_factor` | times `calibration_lr_factor` |
    | delta residual | off | rises to `beta_delta` | `beta_delta` |
    | token routing | off | on | on, the temperature falls |
    | alignment, hinge | off | off | on |

    The phases say when a part is on, `enable_cscf`, `enable_mug`, `enable_delta_depth` and `enable_delta_residual`
    whether it is at all. Cross-entropy and distillation are the same in all three. Without `enable_three_phase` the
    weights are the arguments, and only depth dropout changes, from the start of the training to its end.

    Args:
        step (`int`): Optimizer steps done.
        max_steps (`int`): Those of the whole training.
        args ([`DeltaTrainingArguments`]): The arguments.

    Returns:
        [`PhaseWeights`].
    """
    progress = min(1.0, step / max(1, max_steps))
    start, end = args.depth_dropout, args.depth_dropout_end
    beta = args.beta_delta if args.enable_delta_residual else 0.0
    zeta = args.zeta_cscf if args.enable_cscf else 0.0
    rho = args.rho_mug if args.enable_mug else 0.0
    enabled = float(args.enable_delta_depth)
    warm, cold = args.routing_temperature, args.routing_temperature_end
    if not args.enable_three_phase:
        rate = enabled * depth_dropout_rate(progress, start, end)
        return PhaseWeights(None, rate, None, 1.0, 1.0, beta, zeta, rho, True, warm)
    first, second = args.phase_boundaries
    if progress < first:
        share = args.oversample_smallest
        return PhaseWeights("packing", enabled * start, share, 1.0, 1.0, 0.0, 0.0, 0.0, False, warm)
    if progress < second:
        within = (progress - first) / (second - first)
        rate = enabled * depth_dropout_rate(within, start, end)
        base = args.base_lr_factor
        return PhaseWeights("residualisation", rate, None, 1.0, base, within * beta, 0.0, 0.0, True, warm)
    # Equal steps of the temperature's logarithm.
    temperature = warm * (cold / warm) ** ((progress - second) / (1 - second))
    slow = args.calibration_lr_factor
    return PhaseWeights("calibration", enabled * end, None, slow, 1.0, beta, zeta, rho, True, temperature)


def oversampled(sampler: LevelSampler, share: float) -> LevelSampler:
    """A sampler like another, but whose random draws give the smallest level with chance `share` at first.

    Args:
        sampler ([`LevelSampler`]): The other.
        share (`float`): Chance of the smallest level, above 0 and below 1.
    """
    changed = copy(sampler)
    first, *others = sampler.probabilities
    changed.probabilities = [share / (1 - share) * sum(others) if others else first, *others]
    return changed


class PhaseUpdates(TrainerCallback):
    """Scales what the optimizer changes in a step by the learning-rate factors of [`PhaseWeights`].

    A scaled gradient would do nothing: AdamW divides it by its own size. So it is the change of the base that is
    scaled, after the step, `weight = old + base_lr (new - old)`. For every optimizer whose step is linear in its
    learning rate, as those of SGD and AdamW with its weight decay are, this is just a learning rate of its own for
    the leading slice of each weight, which no parameter group can have; with 0 the base keeps its bits. The gradient
    itself stays whole: accumulated, clipped by the norm of all, and in the moments of the optimizer. Processes change
    equal weights alike.
    """

    def __init__(self):
        self._shapes: dict[str, torch.Size] = {}
        self._blocks: dict[str, int] = {}
        self._rates: list = []
        self._old: list[torch.Tensor] = []

    def on_train_begin(
        self,
        args: DeltaTrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel,
        **kwargs,
    ) -> None:
        self._shapes, self._blocks = model.level_shapes(0), model.row_blocks()

    def on_pre_optimizer_step(
        self,
        args: DeltaTrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        **kwargs,
    ) -> None:
        weights = phase_weights(state.global_step, state.max_steps, args)
        self._rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * weights.learning_rate
        self._old = [part.clone() for part in self._base(model)] if weights.base_lr != 1 else []

    def on_optimizer_step(
        self,
        args: DeltaTrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        **kwargs,
    ) -> None:
        weights = phase_weights(state.global_step, state.max_steps, args)
        for group, rate in zip(optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate
        if self._old:
            for part, old in zip(self._base(model), self._old, strict=True):
                part.copy_(old.lerp(part, weights.base_lr))
            self._old = []

    def _base(self, model: nn.Module) -> list[torch.Tensor]:
        """Views of what the smallest level reads of each trained weight."""
        parts = []
        for name, parameter in model.named_parameters():
            # Gates, which are scalars, and previews belong to what lies beyond the base.
            beyond = not parameter.ndim or PREVIEW in name
            if name not in self._shapes or beyond or not parameter.requires_grad:
                continue
            rows, *others = self._shapes[name]
            blocks = self._blocks.get(name, 1)
            whole = parameter.detach().unflatten(0, (blocks, -1))
            parts.append(whole[(slice(None), slice(rows // blocks), *map(slice, others))])
        return parts
