"""How much of embeddings short codes keep: reconstruction cosine, neighbours, and the linear codes to compare with."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ..data.embedding_rows import chunks
from ..data.principal_components import principal_components
from ..modeling import MatryoshkaFunnelModel
from .baselines import unit
from .bootstrap import bootstrap_mean
from .curve import Curve, LevelPoint


METRIC, OVERLAP = "reconstruction_cosine", "neighbour_overlap_at_10"
NEIGHBOURS = 10


@dataclass
class LinearCode:
    """`(x - mean) W^T` and back: the simple rivals of a funnel, which needs no training.

    Args:
        mean (`np.ndarray` of shape `(dim,)`): What is taken out of the embeddings first.
        basis (`np.ndarray` of shape `(dim, dim)`): Orthonormal rows, the first ones are kept.
        bits (`int`, *optional*): Bits of a number of the code, on a uniform grid over the range of each number in the
            embeddings that it was fitted on; exact numbers by default.
    """

    mean: np.ndarray
    basis: np.ndarray
    bits: int | None = None
    low: np.ndarray | None = None
    step: np.ndarray | None = None

    def encode(self, embeddings: np.ndarray, dim: int) -> np.ndarray:
        """Codes of shape `(n, dim)`; with `bits`, the numbers that these bits stand for."""
        code = (embeddings - self.mean) @ self.basis[:dim].T
        if self.bits is None or self.low is None or self.step is None:
            return code
        low, step = self.low[:dim], self.step[:dim]
        return low + step * np.clip(np.rint((code - low) / step), 0, 2**self.bits - 1)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Embeddings of shape `(n, embedding_dim)`, not of unit length."""
        return self.mean + codes @ self.basis[: codes.shape[1]]


def linear_codes(embeddings: np.ndarray, seed: int = 0) -> dict[str, LinearCode]:
    """The linear codes that a funnel is compared with.

    Args:
        embeddings (`np.ndarray` of shape `(n, dim)`): Unit vectors to fit them on.
        seed (`int`, *optional*, defaults to 0): Of the random one.

    Returns:
        `dict[str, LinearCode]`: `mean` (nothing but the mean vector), `pca`, `pca_uncentred`, `pca_int8` (8 bits a
        number), `random_orthogonal` and `truncation`.
    """
    width = embeddings.shape[1]
    mean, basis, _ = (part.numpy() for part in principal_components(chunks(embeddings)))
    zero, uncentred, _ = (part.numpy() for part in principal_components(chunks(embeddings), centred=False))
    random = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0].T.astype(np.float32)
    ranges = [np.stack([code.min(axis=0), code.max(axis=0)]) for code in _codes(embeddings, mean, basis)]
    lowest, highest = np.min(ranges, axis=0)[0], np.max(ranges, axis=0)[1]
    return {
        "mean": LinearCode(mean, np.zeros_like(basis)),
        "pca": LinearCode(mean, basis),
        "pca_uncentred": LinearCode(zero, uncentred),
        "pca_int8": LinearCode(mean, basis, 8, lowest, np.maximum(highest - lowest, 1e-12) / 255),
        "random_orthogonal": LinearCode(zero, random),
        "truncation": LinearCode(zero, np.eye(width, dtype=np.float32)),
    }


def _codes(embeddings: np.ndarray, mean: np.ndarray, basis: np.ndarray) -> Iterator[np.ndarray]:
    return ((chunk.numpy() - mean) @ basis.T for chunk in chunks(embeddings))


def reconstruction_cosines(reconstructions: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """Cosine of each embedding with what was decoded, both `(n, dim)`; returns `(n,)`."""
    return (unit(reconstructions) * unit(embeddings)).sum(axis=-1)


def neighbour_overlap(
    vectors: np.ndarray, embeddings: np.ndarray, count: int = NEIGHBOURS, block: int = 1024
) -> np.ndarray:
    """Share of the nearest neighbours, by cosine, that vectors and full embeddings have in common.

    Args:
        vectors (`np.ndarray` of shape `(n, k)`): Codes, or what they are decoded to.
        embeddings (`np.ndarray` of shape `(n, dim)`): The full embeddings; among themselves they are compared.
        count (`int`, *optional*, defaults to 10): Neighbours of each.
        block (`int`, *optional*, defaults to 1024): Rows that are compared at once.

    Returns:
        `np.ndarray` of shape `(n,)`: From 0 to 1.

    Raises:
        ValueError: If there are no more than `count` vectors.
    """
    if len(embeddings) <= count:
        raise ValueError(f"{count} neighbours need more than {count} vectors, but there are {len(embeddings)}")

    def neighbours(rows: torch.Tensor) -> Iterator[torch.Tensor]:
        for start in range(0, len(rows), block):
            cosines = rows[start : start + block] @ rows.T
            own = torch.arange(len(cosines))
            cosines[own, start + own] = -torch.inf
            yield cosines.topk(count, dim=1).indices

    found = []
    both = [torch.from_numpy(unit(part).astype(np.float32)) for part in (vectors, embeddings)]
    for one, other in zip(*(neighbours(part) for part in both), strict=True):
        found.append((one[:, :, None] == other[:, None, :]).any(dim=2).double().mean(dim=1))
    return torch.cat(found).numpy()


@torch.no_grad()
def decoded_levels(
    model: MatryoshkaFunnelModel, embeddings: np.ndarray, batch_size: int = 1024
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Latents of the largest level, `(batch, latent_dim)`, and what each level decodes them to, `(levels, batch,
    embedding_dim)`, batch by batch."""
    for chunk in chunks(embeddings, batch_size):
        found = model(chunk.to(model.device, model.dtype), all_levels=True)
        yield found.latents.float().cpu().numpy(), found.reconstructions.float().cpu().numpy()


def funnel_curve(model: MatryoshkaFunnelModel, embeddings: np.ndarray, split: str) -> Curve:
    """Mean reconstruction cosine of each level against its cost, with 95% bootstrap intervals.

    Args:
        model ([`MatryoshkaFunnelModel`]): The funnel, in evaluation mode.
        embeddings (`np.ndarray` of shape `(n, embedding_dim)`): Embeddings that it was not trained on.
        split (`str`): What they are.
    """
    rows = [
        reconstruction_cosines(levels, chunk.numpy())
        for (_, levels), chunk in zip(decoded_levels(model, embeddings), chunks(embeddings, 1024), strict=True)
    ]
    return _curve(model, np.concatenate(rows, axis=1), split, "ours")


def overlap_curve(
    model: MatryoshkaFunnelModel, embeddings: np.ndarray, split: str, codes: Mapping[str, LinearCode] | None = None
) -> Curve:
    """Mean share of the ten nearest neighbours, among the embeddings, that the latents of each level keep.

    Args:
        model ([`MatryoshkaFunnelModel`]): The funnel, in evaluation mode.
        embeddings (`np.ndarray` of shape `(n, embedding_dim)`): Embeddings that it was not trained on, at least 11.
            The time grows with the square of `n`.
        split (`str`): What they are.
        codes (`Mapping[str, LinearCode]`, *optional*): Linear codes by name, to be the curve's baselines.
    """
    whole = np.asarray(embeddings[:])
    latents = np.concatenate([found for found, _ in decoded_levels(model, embeddings)])
    curve = _curve(model, _overlaps(model, latents, whole), split, "ours", metric=OVERLAP)
    for name, code in (codes or {}).items():
        own = _overlaps(model, code.encode(unit(whole), _dims(model)[-1]), whole)
        curve.baselines[name] = _curve(model, own, split, name, _linear_macs(model), OVERLAP)
    return curve


def _overlaps(model: MatryoshkaFunnelModel, codes: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """Overlaps of every level, `(levels, n)`, of codes of the largest."""
    return np.stack([neighbour_overlap(codes[:, :dim], embeddings) for dim in _dims(model)])


def linear_curve(
    model: MatryoshkaFunnelModel, code: LinearCode, name: str, embeddings: np.ndarray, split: str
) -> Curve:
    """As [`funnel_curve`], of a linear code at the same widths; its costs are those of a matrix to the code and
    back."""
    rows = []
    for chunk in chunks(embeddings, 1024):
        whole = unit(chunk.numpy())
        rows.append([reconstruction_cosines(code.decode(code.encode(whole, dim)), whole) for dim in _dims(model)])
    return _curve(model, np.concatenate(rows, axis=1), split, name, _linear_macs(model))


def _linear_macs(model: MatryoshkaFunnelModel) -> Callable[[int], int]:
    return lambda dim: 2 * dim * model.config.embedding_dim


def _dims(model: MatryoshkaFunnelModel) -> list[int]:
    return list(model.config.matryoshka_dims or ())


def _curve(
    model: MatryoshkaFunnelModel,
    values: np.ndarray,
    split: str,
    system: str,
    macs: Callable[[int], int] | None = None,
    metric: str = METRIC,
) -> Curve:
    points = []
    for level, dim, own in zip(model.config.levels, _dims(model), values, strict=True):
        cost: dict[str, float] = {**model.cost(level)}
        if macs is not None:
            cost |= {"parameters": macs(dim) // 2, "macs": macs(dim)}
        points.append(LevelPoint(level, dim, *bootstrap_mean(own.astype(np.float64)), cost, own))
    return Curve(points, metric, split, system)
