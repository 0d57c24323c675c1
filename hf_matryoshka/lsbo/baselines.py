"""What a search must beat: draws from the density of the latents, and known embeddings in a random order."""

from pathlib import Path
from typing import Any

import numpy as np

from .optimizer import Optimizer
from .search_space import SearchSpace
from .trial import Trial


class RandomSearch(Optimizer):
    """Draws from the density of the latents, which is standard normal in the coordinates of the space.

    Args:
        space ([`SearchSpace`]), maximize (`bool`), trials (`int`), seed (`int`), folder (`str` or `Path`): As those of
            [`Optimizer`].

    Raises:
        ValueError: As [`Optimizer`].
    """

    name = "random"

    def __init__(
        self,
        space: SearchSpace,
        *,
        maximize: bool,
        trials: int = 225,
        seed: int = 0,
        folder: str | Path | None = None,
    ):
        super().__init__(space, maximize=maximize, trials=trials, seed=seed, folder=folder)
        self._resume()

    def _propose(self, q: int) -> list[Trial]:
        # A generator a trial: how many are asked for at once changes nothing.
        rows = [random_point(self.space, self.seed, len(self.trials) + number) for number in range(q)]
        return self._trials(rows, 0, self.space.latent_dim, "random")


class CorpusPool(Optimizer):
    """Known embeddings, such as those of a corpus of texts, in a random order and each once.

    Args:
        space ([`SearchSpace`]), maximize (`bool`), trials (`int`), seed (`int`), folder (`str` or `Path`): As those of
            [`Optimizer`].
        pool (`np.ndarray` of shape `(n, embedding_dim)`): The embeddings; at least as many as trials.

    Raises:
        ValueError: If they are of another shape or too few, or as [`Optimizer`].
    """

    name = "pool"

    def __init__(
        self,
        space: SearchSpace,
        *,
        maximize: bool,
        pool: np.ndarray,
        trials: int = 225,
        seed: int = 0,
        folder: str | Path | None = None,
    ):
        super().__init__(space, maximize=maximize, trials=trials, seed=seed, folder=folder)
        width = space.funnel.config.embedding_dim
        if pool.ndim != 2 or pool.shape[1] != width:
            raise ValueError(f"pool must be embeddings of shape (n, {width}), but has the shape {pool.shape}")
        if len(pool) < trials:
            raise ValueError(f"the pool holds {len(pool)} embeddings, fewer than the {trials} trials")
        self.pool = pool
        self._order = np.random.default_rng(seed).permutation(len(pool))
        self._resume()

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"pool": [len(self.pool), f"{self.pool.sum(dtype=np.float64):.6e}"]}

    def _propose(self, q: int) -> list[Trial]:
        """As many as are left of the pool."""
        embeddings = self.pool[self._order[len(self.trials) : len(self.trials) + q]]
        if not len(embeddings):
            return []
        found = self._trials(self.space.encode(embeddings), 0, self.space.latent_dim, "pool")
        texts = [trial.text for trial in found]
        if self.space.decode_texts is not None:
            texts = self.space.decode_texts(embeddings)
        # The embedding itself counts, not what is left of it in the latent.
        for trial, embedding, text in zip(found, embeddings, texts, strict=True):
            trial.embedding, trial.text = embedding, text
        return found


def random_point(space: SearchSpace, seed: int, number: int) -> np.ndarray:
    """Coordinates `(latent_dim,)` of the trial of this number, drawn from the density of the latents in the box."""
    drawn = np.random.default_rng([seed, number]).standard_normal(space.latent_dim)
    return drawn.clip(-space.bound, space.bound)
