"""TuRBO-1: Thompson sampling in a box around the best trial (Eriksson et al., arXiv 1910.01739)."""

import math
from pathlib import Path
from typing import Any

import gpytorch
import numpy as np
import torch
from botorch.generation import MaxPosteriorSampling
from botorch.models import SingleTaskGP
from botorch.utils.sampling import manual_seed
from gpytorch.constraints import Interval
from gpytorch.kernels import MaternKernel, ScaleKernel
from gpytorch.likelihoods import GaussianLikelihood
from torch.quasirandom import SobolEngine

from .baselines import random_point
from .optimizer import Optimizer
from .search_space import SearchSpace
from .surrogates import fit
from .trial import COMPLETE, PENDING, Trial


# Constants of BoTorch's tutorial: sides of the box in the unit cube, trials in a row that double it, and how much
# better a value must be to count.
LENGTH, LEAST, MOST = 0.8, 0.5**7, 1.6
SUCCESSES, MARGIN = 10, 1e-3


class Turbo(Optimizer):
    """TuRBO with one trust region, with the constants of BoTorch's tutorial.

    A box that has shrunk away is left for a new one, which starts from random trials of its own: the next stage.

    Args:
        space ([`SearchSpace`]), maximize (`bool`), trials (`int`), seed (`int`), folder (`str` or `Path`): As those of
            [`Optimizer`].
        initial (`int`, *optional*, defaults to 10): Trials before the first model: the mean, then random ones.
        candidates (`int`, *optional*): Points that the samples of the model are compared at; by default 200 a
            dimension, from 2,000 to 5,000.

    Raises:
        ValueError: If a number is too small, or as [`Optimizer`].
    """

    name = "turbo"

    def __init__(
        self,
        space: SearchSpace,
        *,
        maximize: bool,
        trials: int = 225,
        seed: int = 0,
        folder: str | Path | None = None,
        initial: int = 10,
        candidates: int | None = None,
    ):
        super().__init__(space, maximize=maximize, trials=trials, seed=seed, folder=folder)
        if initial < 2:
            raise ValueError(f"initial must be at least 2, or there is nothing to model, but is {initial}")
        if candidates is not None and candidates < 1:
            raise ValueError(f"candidates must be at least 1, but is {candidates}")
        self.initial = initial
        self.candidates = candidates or min(5000, max(2000, 200 * space.latent_dim))
        self._resume()

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"initial": self.initial, "candidates": self.candidates}

    def _propose(self, q: int) -> list[Trial]:
        # All that counts follows from the trials, so a resumed run needs no state of its own.
        stage = self.trials[-1].stage if self.trials else 0
        own = [trial for trial in self.trials if trial.stage == stage]
        length = self._length(own)
        if length < LEAST:
            stage, own, length = stage + 1, [], LENGTH
        known = [trial for trial in own if trial.status == COMPLETE]
        dim = self.space.latent_dim
        if len(own) >= self.initial and len(known) >= 2:
            return self._trials(self._sample(known, length, q), stage, dim, "model")
        if not self.trials:
            return self._trials([np.zeros(dim)], stage, dim, "start")
        q = min(q, self.initial - len(own)) if len(own) < self.initial else q
        rows = [random_point(self.space, self.seed, len(self.trials) + number) for number in range(q)]
        return self._trials(rows, stage, dim, "random")

    def _length(self, trials: list[Trial]) -> float:
        """Side of the box after the trials of a stage."""
        length, successes, failures, best = LENGTH, 0, 0, -math.inf
        sign = 1 if self.maximize else -1
        for trial in trials:
            if trial.status == PENDING:
                continue
            value = sign * trial.value if trial.status == COMPLETE else -math.inf
            better = value > (best + MARGIN * abs(best) if math.isfinite(best) else best)
            best = max(best, value)
            if trial.origin != "model":
                continue
            successes, failures = (successes + 1, 0) if better else (0, failures + 1)
            if successes == SUCCESSES:
                length, successes = min(2 * length, MOST), 0
            elif failures == max(4, self.space.latent_dim):
                length, failures = length / 2, 0
        return length

    def _sample(self, known: list[Trial], length: float, q: int) -> np.ndarray:
        """Coordinates `(q, latent_dim)` where samples of the model are largest, among candidates in the box."""
        sign, dim = 1 if self.maximize else -1, self.space.latent_dim
        points = self.space.to_unit(torch.from_numpy(np.stack([trial.coordinates for trial in known])))
        values = torch.tensor([sign * trial.value for trial in known], dtype=torch.float64)
        seed = int(np.random.default_rng([self.seed, len(self.trials)]).integers(2**31))
        with manual_seed(seed), gpytorch.settings.max_cholesky_size(math.inf):
            model = _fit(points, values)
            centre = points[values.argmax()]
            low, high = _box(centre, model, length)
            drawn = SobolEngine(dim, scramble=True, seed=seed).draw(self.candidates, dtype=torch.float64)
            drawn = low + (high - low) * drawn
            # In many dimensions a candidate differs from the best trial in some 20 of them, and at least in one.
            changed = torch.rand(self.candidates, dim, dtype=torch.float64) <= min(20 / dim, 1)
            changed[torch.arange(self.candidates), torch.randint(dim, (self.candidates,))] = True
            candidates = torch.where(changed, drawn, centre)
            with torch.no_grad():
                found = MaxPosteriorSampling(model, replacement=False)(candidates, num_samples=q)
        return self.space.from_unit(found).numpy()


def _fit(points: torch.Tensor, values: torch.Tensor) -> SingleTaskGP:
    """The model of the tutorial: Matern 5/2 with a length scale a dimension, little noise."""
    kernel = MaternKernel(nu=2.5, ard_num_dims=points.shape[1], lengthscale_constraint=Interval(0.005, 4.0))
    likelihood = GaussianLikelihood(noise_constraint=Interval(1e-8, 1e-3))
    return fit(SingleTaskGP(points, values[:, None], likelihood=likelihood, covar_module=ScaleKernel(kernel)))


def _box(centre: torch.Tensor, model: SingleTaskGP, length: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Lowest and highest corner, `(dim,)` each: longer where the length scales are."""
    weights = model.covar_module.base_kernel.lengthscale.detach().reshape(-1)
    weights = weights / weights.log().mean().exp()
    half = weights * length / 2
    return (centre - half).clamp(0, 1), (centre + half).clamp(0, 1)
