"""Where an optimisation searches: a box around the mean of a funnel's whitened coordinates."""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from ..modeling import MatryoshkaFunnelModel
from .checks import check_numbers


# Rows that are encoded at once, always: a product of another shape is rounded otherwise, and a run that goes on
# encodes its texts in other groups than one that nothing interrupted.
ENCODED = 64


class SearchSpace:
    """The latent of a funnel in coordinates that are standard normal for embeddings like those that it was trained on.

    Coordinates of later stages that are 0 are the mean of these stages given the earlier ones, so a point of the first
    stages is a point of all. An untrained funnel ([`~surgery.funnel_init.init_funnel`]) searches principal components.

    Args:
        funnel ([`MatryoshkaFunnelModel`]): The funnel.
        bound (`float`, *optional*, defaults to 3.0): Half the side of the box, in standard deviations.
        decode_texts (`Callable`, *optional*): Turns embeddings `(n, embedding_dim)` into a list of n texts, such as
        the
            `decode` of a text decoder.
        encode_texts (`Callable`, *optional*): Embeddings `(n, embedding_dim)` of a list of n texts; a model of the
        texts
            themselves needs it.

    Raises:
        ValueError: If the bound is no finite number above 0.
    """

    def __init__(
        self,
        funnel: MatryoshkaFunnelModel,
        bound: float = 3.0,
        decode_texts: Callable[[np.ndarray], Sequence[str]] | None = None,
        encode_texts: Callable[[Sequence[str]], np.ndarray] | None = None,
    ):
        check_numbers(bound=bound)
        if bound is None or not bound > 0:
            raise ValueError(f"bound must be above 0, or the box is empty, but is {bound}")
        self.funnel = funnel.eval()
        # A gradient search needs more digits than float32 has.
        self._exact = copy.deepcopy(funnel).to("cpu", torch.float64).requires_grad_(False)
        self.bound = bound
        self.decode_texts, self.encode_texts = decode_texts, encode_texts

    @property
    def dims(self) -> list[int]:
        """Ends of the stages."""
        return list(self.funnel.config.matryoshka_dims)

    @property
    def latent_dim(self) -> int:
        """Number of coordinates."""
        return self.funnel.config.latent_dim

    def to_unit(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Coordinates as points of the unit cube, the mean at its centre."""
        return (coordinates / self.bound + 1) / 2

    def from_unit(self, points: torch.Tensor) -> torch.Tensor:
        """Undoes [`to_unit`]."""
        return (2 * points - 1) * self.bound

    def embed(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Embeddings, `(..., embedding_dim)`, of coordinates, `(..., latent_dim)`, both float64 on the CPU; they may
        be differentiated."""
        found = self._exact.decode(self._exact.unwhiten(coordinates.reshape(-1, coordinates.shape[-1])))
        return found.reshape(*coordinates.shape[:-1], found.shape[-1])

    @torch.no_grad()
    def decode(self, coordinates: np.ndarray) -> np.ndarray:
        """Embeddings, `(n, embedding_dim)`, of coordinates, `(n, latent_dim)`."""
        return self.embed(torch.as_tensor(np.asarray(coordinates), dtype=torch.float64)).float().numpy()

    @torch.no_grad()
    def encode(self, embeddings: np.ndarray) -> np.ndarray:
        """Coordinates, `(n, latent_dim)`, of embeddings, `(n, embedding_dim)`; those outside of the box on its
        edge."""
        given = torch.as_tensor(np.asarray(embeddings), dtype=torch.float64)
        parts = [torch.zeros(0, self.latent_dim, dtype=torch.float64)]
        for rows in given.split(ENCODED):
            padded = F.pad(rows, (0, 0, 0, ENCODED - len(rows)))
            parts.append(self._exact.whiten(self._exact.encode(padded))[: len(rows)])
        return torch.cat(parts).numpy().clip(-self.bound, self.bound)

    def fingerprint(self) -> dict[str, object]:
        """What must be equal for a stored run to go on."""
        weights = sum(tensor.double().abs().sum().item() for tensor in self.funnel.state_dict().values())
        return {"dims": self.dims, "bound": self.bound, "weights": f"{weights:.6e}"}
