"""CMA-ES, the evolution strategy that adapts its covariance (Hansen, arXiv 1604.00772), by the library `cma`."""

from pathlib import Path
from typing import Any

import numpy as np

from .optimizer import Optimizer
from .search_space import SearchSpace
from .trial import COMPLETE, PENDING, Trial


class CMAES(Optimizer):
    """CMA-ES around the mean of the latents, with their standard deviation.

    It learns from whole generations: where the candidates of one are all open, `ask` gives none until they are told.

    Args:
        space ([`SearchSpace`]), maximize (`bool`), trials (`int`), seed (`int`), folder (`str` or `Path`): As those of
            [`Optimizer`].
        sigma (`float`, *optional*, defaults to 1.0): The first step size, in whitened coordinates.

    Raises:
        ValueError: If `sigma` is not above 0, or as [`Optimizer`].
    """

    name = "cmaes"

    def __init__(
        self,
        space: SearchSpace,
        *,
        maximize: bool,
        trials: int = 225,
        seed: int = 0,
        folder: str | Path | None = None,
        sigma: float = 1.0,
    ):
        import cma

        super().__init__(space, maximize=maximize, trials=trials, seed=seed, folder=folder)
        if not sigma > 0:
            raise ValueError(f"sigma must be above 0, but is {sigma}")
        self.sigma = sigma
        rng = np.random.default_rng(seed)
        options = {
            "bounds": [-space.bound, space.bound],
            # Draws of its own: those of the library come from the global state of NumPy.
            "randn": lambda *shape: rng.standard_normal(shape),
            "seed": np.nan,
            "verbose": -9,
        }
        self._strategy = cma.CMAEvolutionStrategy(np.zeros(space.latent_dim), sigma, options)
        self._generation: list[np.ndarray] = self._strategy.ask()
        # Trials of the generations before this one.
        self._before = 0
        self._resume()

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"sigma": self.sigma}

    def _propose(self, q: int) -> list[Trial]:
        self._learn()
        start = len(self.trials) - self._before
        rows = self._generation[start : start + q]
        return self._trials(rows, 0, self.space.latent_dim, "cmaes") if rows else []

    def _learn(self) -> None:
        """Tells the strategy the generations that are complete: of a resumed run all, in the same order."""
        while len(self.trials) >= self._before + len(self._generation):
            own = self.trials[self._before : self._before + len(self._generation)]
            if any(trial.status == PENDING for trial in own):
                return
            self._strategy.tell(self._generation, self._costs(own))
            self._before += len(own)
            self._generation = self._strategy.ask()

    def _costs(self, trials: list[Trial]) -> list[float]:
        """What is to be minimised; a failed trial counts as the worst of its generation."""
        sign = -1 if self.maximize else 1
        costs = {trial.id: sign * trial.value for trial in trials if trial.status == COMPLETE}
        worst = max(costs.values(), default=0.0)
        return [costs.get(trial.id, worst) for trial in trials]
