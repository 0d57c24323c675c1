"""The box around the best trial in which a search stays (TuRBO, Eriksson et al., arXiv 1910.01739)."""

import math
from dataclasses import dataclass

import torch
from botorch.models.model import Model


LENGTH, LEAST, MOST = 0.8, 0.5**7, 1.6
SUCCESSES = 3


@dataclass
class TrustRegion:
    """A box that doubles after some successes in a row and halves after some failures.

    Args:
        length (`float`): Its side in the unit cube, before it is stretched along dimensions that matter less.
        successes, failures (`int`): Trials in a row that were better, or not better, than the best one.
    """

    length: float = LENGTH
    successes: int = 0
    failures: int = 0

    def update(self, better: bool, dim: int) -> None:
        """Counts a trial, in so many dimensions; a box that has become too small starts anew."""
        self.successes, self.failures = (self.successes + 1, 0) if better else (0, self.failures + 1)
        if self.successes == SUCCESSES:
            self.length, self.successes = min(2 * self.length, MOST), 0
        elif self.failures == max(4, dim):
            self.length, self.failures = self.length / 2, 0
        if self.length < LEAST:
            self.length = LENGTH

    def bounds(self, centre: torch.Tensor, model: Model) -> torch.Tensor:
        """The box around a point of the cube, `(dim,)`, as `(2, dim)`: longer where the model's length scales are."""
        weights = torch.ones_like(centre)
        scale = getattr(getattr(model, "covar_module", None), "lengthscale", None)
        if scale is not None and scale.shape[-1] == len(centre) and scale.numel() == len(centre):
            weights = scale.detach().reshape(-1)
            weights = weights / weights.mean()
            weights = weights / math.exp(weights.log().mean().item())
        half = weights * self.length / 2
        return torch.stack([(centre - half).clamp(0, 1), (centre + half).clamp(0, 1)])
