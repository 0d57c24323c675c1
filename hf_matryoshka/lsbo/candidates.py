"""Points that are drawn, to choose from them."""

import numpy as np

from .search_space import SearchSpace


# How many are drawn and decoded for a proposal, and the spread of those around the best one.
CANDIDATES, SPREADS = 256, (0.1, 0.3, 1.0)
# Of these the coordinates that are changed at once, on average: more would leave nothing of the best point.
CHANGED = 20


def draw_candidates(space: SearchSpace, centre: np.ndarray, start: int, end: int, seed: int) -> np.ndarray:
    """Points of some coordinates: half of them from the density of the latents, half near the best one.

    Args:
        space ([`SearchSpace`]): Where.
        centre (`np.ndarray` of shape `(latent_dim,)`): The best point.
        start, end (`int`): The coordinates that are drawn; those before are those of `centre`, those behind 0.
        seed (`int`): Of the draws.

    Returns:
        `np.ndarray` of shape `(256, latent_dim)`.
    """
    rng = np.random.default_rng(seed)
    rows = np.zeros((CANDIDATES, space.latent_dim))
    rows[:, :start] = centre[:start]
    half, width = CANDIDATES // 2, end - start
    rows[:half, start:end] = rng.standard_normal((half, width))
    changed = rng.random((CANDIDATES - half, width)) < min(1.0, CHANGED / width)
    spread = rng.choice(SPREADS, size=(CANDIDATES - half, 1))
    moved = changed * spread * rng.standard_normal((CANDIDATES - half, width))
    rows[half:, start:end] = centre[start:end] + moved
    return rows.clip(-space.bound, space.bound)
