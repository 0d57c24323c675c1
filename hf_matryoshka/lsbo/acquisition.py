"""Where to look next: maximising expected improvement over some coordinates, the others held fixed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from botorch.acquisition import AcquisitionFunction
from botorch.acquisition.logei import qLogExpectedImprovement, qLogNoisyExpectedImprovement
from botorch.acquisition.objective import GenericMCObjective
from botorch.acquisition.prior_guided import PriorGuidedAcquisitionFunction
from botorch.models import ModelListGP
from botorch.models.model import Model
from botorch.optim import optimize_acqf
from botorch.optim.initializers import gen_batch_initial_conditions
from botorch.sampling import SobolQMCNormalSampler
from torch import nn

from .checks import check_whole_numbers


@dataclass
class AcquisitionOptions:
    """How hard the acquisition is maximised.

    Args:
        num_restarts (`int`, *optional*, defaults to 4): Starting points of the gradient search.
        raw_samples (`int`, *optional*, defaults to 256): Points that these are chosen from; part of them lie around
        the
            best ones known, which matters in many dimensions (Papenmeier et al., arXiv 2502.09198).
        maxiter (`int`, *optional*, defaults to 60): Steps of the gradient search.
        mc_samples (`int`, *optional*, defaults to 128): Draws that the improvement is a mean of.

    Raises:
        ValueError: If one is no whole number from 1 on.
    """

    num_restarts: int = 4
    raw_samples: int = 256
    maxiter: int = 60
    mc_samples: int = 128

    def __post_init__(self):
        check_whole_numbers(**vars(self))
        for name, value in vars(self).items():
            if value is None or value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}")


@dataclass
class Observations:
    """What is known, in the unit cube; larger values are better.

    Args:
        points (`torch.DoubleTensor` of shape `(n, dim)`), values (`torch.DoubleTensor` of shape `(n,)`): Those with a
            value.
        pending (`torch.DoubleTensor` of shape `(m, dim)`, *optional*): Those without one yet.
        noisy (`bool`, *optional*, defaults to `False`): Whether the best value may be luck.
    """

    points: torch.Tensor
    values: torch.Tensor
    pending: torch.Tensor | None = None
    noisy: bool = False


def expected_improvement(
    model: Model,
    known: Observations,
    seed: int,
    options: AcquisitionOptions,
    *,
    feasibility: Model | None = None,
    log_prior: Callable[[torch.Tensor], torch.Tensor] | None = None,
    prior_exponent: float = 0.0,
) -> AcquisitionFunction:
    """The logarithm of the expected improvement over what is known (Ament et al., arXiv 2310.20708).

    Args:
        model (`Model`): Of the objective.
        known ([`Observations`]): What it was fitted on.
        seed (`int`): Of the draws.
        options ([`AcquisitionOptions`]): How many draws.
        feasibility (`Model`, *optional*): Of whether a point has a value at all, 1, or fails, 0.
        log_prior (`Callable`, *optional*): Logarithm of a density over points `(..., dim)`, which guides the search.
        prior_exponent (`float`, *optional*, defaults to 0.0): How much.

    Returns:
        `AcquisitionFunction`: Of points `(n, q, dim)`.
    """
    settings = {"sampler": SobolQMCNormalSampler(torch.Size([options.mc_samples]), seed=seed)}
    settings["X_pending"] = known.pending
    if feasibility is not None:
        model = ModelListGP(model, feasibility)
        settings["objective"] = GenericMCObjective(lambda samples, X=None: samples[..., 0])
        settings["constraints"] = [lambda samples: 0.5 - samples[..., 1]]
    if known.noisy:
        improvement = qLogNoisyExpectedImprovement(model, X_baseline=known.points, prune_baseline=True, **settings)
    else:
        improvement = qLogExpectedImprovement(model, best_f=known.values.max(), **settings)
    if log_prior is not None and prior_exponent:
        density = _Density(log_prior)
        improvement = PriorGuidedAcquisitionFunction(
            improvement, density, log=True, prior_exponent=prior_exponent, X_pending=known.pending
        )
    if not hasattr(improvement, "X_baseline"):
        # What BoTorch draws starting points around; the inputs of the model may be no points.
        improvement.X_baseline = known.points
    return improvement


def propose(
    acquisition: AcquisitionFunction,
    bounds: torch.Tensor,
    fixed: dict[int, float],
    q: int,
    seed: int,
    options: AcquisitionOptions,
    project: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> tuple[torch.Tensor, float]:
    """The points of the largest expected improvement, one after the other.

    Args:
        acquisition (`AcquisitionFunction`): As [`expected_improvement`] makes it.
        bounds (`torch.DoubleTensor` of shape `(2, dim)`): The box to look in.
        fixed (`dict[int, float]`): Coordinates that are not to be changed, and what they are.
        q (`int`): How many points.
        seed (`int`): Of the starting points.
        options ([`AcquisitionOptions`]): How hard to look.
        project (`Callable`, *optional*): Takes points `(..., dim)` to allowed ones.

    Returns:
        `tuple[torch.Tensor, float]`: Points `(q, dim)`, and the logarithm of the expected improvement of the first.
    """
    points, values = optimize_acqf(
        acquisition,
        bounds=bounds,
        q=q,
        num_restarts=options.num_restarts,
        raw_samples=options.raw_samples,
        options={"sample_around_best": True, "maxiter": options.maxiter, "seed": seed},
        fixed_features=fixed or None,
        post_processing_func=project,
        sequential=q > 1,
        ic_generator=_starting_points,
    )
    return points.detach(), float(values.reshape(-1)[0])


def _starting_points(acq_function: AcquisitionFunction, bounds: torch.Tensor, **options: Any) -> torch.Tensor:
    """Those of BoTorch inside the box: around a known point outside of it, some are not."""
    return gen_batch_initial_conditions(acq_function, bounds, **options).clamp(*bounds)


def best_of(acquisition: AcquisitionFunction, points: torch.Tensor, q: int) -> list[int]:
    """Which of some points have the largest expected improvement, one after the other.

    Args:
        acquisition (`AcquisitionFunction`): As [`expected_improvement`] makes it.
        points (`torch.DoubleTensor` of shape `(n, dim)`): The points.
        q (`int`): How many; all if there are fewer.

    Returns:
        `list[int]`: Their places.
    """
    chosen: list[int] = []
    before = acquisition.X_pending
    for _ in range(min(q, len(points))):
        taken = [] if before is None else [before]
        acquisition.set_X_pending(torch.cat([*taken, points[chosen]]) if taken or chosen else None)
        with torch.no_grad():
            gains = acquisition(points[:, None])
        gains[chosen] = -torch.inf
        chosen.append(int(gains.argmax()))
    return chosen


class _Density(nn.Module):
    """A function as the module that BoTorch asks for."""

    def __init__(self, log_prob: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.log_prob = log_prob

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return self.log_prob(points)
