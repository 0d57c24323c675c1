"""Points that are drawn, to choose from them."""

import numpy as np

from .search_space import SearchSpace


# How many are drawn and decoded for a proposal by default, and the spread of those around the best one.
CANDIDATES, SPREADS = 256, (0.1, 0.3, 1.0)
# Of these the coordinates that are changed at once, on average: more would leave nothing of the best point.
CHANGED = 20


def draw_candidates(
    space: SearchSpace, centre: np.ndarray, start: int, end: int, seed: int, count: int = CANDIDATES
) -> np.ndarray:
    """Points of some coordinates: half of them from the density of the latents, half near the best one.

    Args:
        space ([`SearchSpace`]): Where.
        centre (`np.ndarray` of shape `(latent_dim,)`): The best point.
        start, end (`int`): The coordinates that are drawn; those before are those of `centre`, those behind 0.
        seed (`int`): Of the draws.
        count (`int`, *optional*, defaults to 256): How many.

    Returns:
        `np.ndarray` of shape `(count, latent_dim)`.
    """
    rng = np.random.default_rng(seed)
    rows = np.zeros((count, space.latent_dim))
    rows[:, :start] = centre[:start]
    half, width = count // 2, end - start
    rows[:half, start:end] = rng.standard_normal((half, width))
    changed = rng.random((count - half, width)) < min(1.0, CHANGED / width)
    spread = rng.choice(SPREADS, size=(count - half, 1))
    moved = changed * spread * rng.standard_normal((count - half, width))
    rows[half:, start:end] = centre[start:end] + moved
    return rows.clip(-space.bound, space.bound)
