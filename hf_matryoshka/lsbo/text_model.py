"""A model of texts instead of points: what a text is encoded to decides its value, not where it was decoded from."""

from collections.abc import Sequence

import numpy as np
import torch

from .acquisition import AcquisitionOptions, Observations, best_of, expected_improvement
from .candidates import draw_candidates
from .search_space import SearchSpace
from .surrogates import fit_surrogate


TEXTS = "texts"
# Points of a proposal; more than where points are modelled, as many of them decode to one text.
DRAWN = 1024


class TextModel:
    """A Gaussian process over the coordinates that decoded texts are encoded to.

    A decoder takes many points to one text, and a text back to another point, so a model of points learns what is not
    there (Moss et al., arXiv 2507.03910, which this follows: candidates are drawn from the latents, the improvement is
    that of their texts).

    Args:
        space ([`SearchSpace`]): With `decode_texts` and `encode_texts`.

    Raises:
        ValueError: If it lacks one of them.
    """

    def __init__(self, space: SearchSpace):
        if space.decode_texts is None or space.encode_texts is None:
            raise ValueError("surrogate 'texts' needs a search space with decode_texts and encode_texts")
        self.space = space
        self._known: dict[str, np.ndarray] = {}

    def features(self, texts: Sequence[str]) -> np.ndarray:
        """Coordinates, `(n, latent_dim)`, of texts; each is encoded once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known |= dict(zip(new, self.space.encode(self.space.encode_texts(new)), strict=True))
        return np.array([self._known[text] for text in texts]).reshape(len(texts), self.space.latent_dim)

    def best(
        self,
        features: np.ndarray,
        values: np.ndarray,
        centre: np.ndarray,
        start: int,
        end: int,
        known: Sequence[str],
        pending: Sequence[str],
        q: int,
        seed: int,
    ) -> np.ndarray:
        """The points whose texts promise most.

        Args:
            features (`np.ndarray` of shape `(n, latent_dim)`), values (`np.ndarray` of shape `(n,)`): Of the texts
                with
                a value; larger is better.
            centre (`np.ndarray` of shape `(latent_dim,)`): The best point.
            start, end (`int`): The coordinates that may be changed.
            known (`Sequence[str]`): Texts that are not to be proposed.
            pending (`Sequence[str]`): Those of them without a value yet.
            q (`int`): How many points.
            seed (`int`): Of the draws.

        Returns:
            `np.ndarray` of shape `(k, latent_dim)`: At most `q` points; at least one.
        """
        rows = draw_candidates(self.space, centre, start, end, seed, DRAWN)
        texts = list(self.space.decode_texts(self.space.decode(rows)))
        places = {text: row for row, text in reversed(list(enumerate(texts))) if text not in set(known)}
        if not places:
            return rows[:q]
        cube = self.space.to_unit(torch.from_numpy(features))
        model = fit_surrogate(cube, torch.from_numpy(values))
        names = list(places)
        points = self.space.to_unit(torch.from_numpy(self.features(names)))
        waiting = self.space.to_unit(torch.from_numpy(self.features(pending))) if pending else None
        known_values = Observations(cube, torch.from_numpy(values), waiting)
        chosen = best_of(expected_improvement(model, known_values, seed, AcquisitionOptions()), points, q)
        return rows[[places[names[number]] for number in chosen]]
