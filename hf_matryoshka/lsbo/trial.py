"""One candidate of an optimisation, from its proposal to its value."""

from dataclasses import dataclass
from typing import Any

import numpy as np


PENDING, COMPLETE, FAILED = "pending", "complete", "failed"


@dataclass
class Trial:
    """A candidate.

    Args:
        id (`int`): Its number, from 0 in the order of proposal.
        coordinates (`np.ndarray` of shape `(latent_dim,)`): Where it lies, in the whitened coordinates of the funnel;
            float64.
        stage (`int`): Number of the stage that proposed it.
        active_dim (`int`): How many of the coordinates that stage could set; the others are 0.
        origin (`str`): `"start"`, `"random"`, `"model"`, `"corpus"` or what a baseline calls it.
        embedding (`np.ndarray` of shape `(embedding_dim,)`): What the funnel decodes it to.
        text (`str`, *optional*): What the text decoder makes of that.
        status (`str`): `"pending"`, `"complete"` or `"failed"`.
        value (`float`, *optional*): What the objective gave.
        variance (`float`, *optional*): Of the noise in the value.
        reason (`str`, *optional*): Why it failed.
        seconds (`float`, *optional*): What its proposal took, its share where several were made at once.
        refused (`int`, *optional*, defaults to 0): Proposals that were refused before it because their text was known.
    """

    id: int
    coordinates: np.ndarray
    stage: int
    active_dim: int
    origin: str
    embedding: np.ndarray
    text: str | None = None
    status: str = PENDING
    value: float | None = None
    variance: float | None = None
    reason: str | None = None
    seconds: float | None = None
    refused: int = 0

    @property
    def candidate(self) -> Any:
        """What an objective is given: the text where there is one, else the embedding."""
        return self.embedding if self.text is None else self.text

    def record(self) -> dict[str, Any]:
        """All but the arrays, as JSON has it."""
        names = ("id", "stage", "active_dim", "origin", "text", "status", "value", "variance", "reason")
        return {name: getattr(self, name) for name in (*names, "seconds", "refused")}
