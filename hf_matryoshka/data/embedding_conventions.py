"""What "the embedding of GTR-T5" means: three spaces of one checkpoint that do not fit each other.

- `"raw_mean"`: the mean of the token states of the T5 encoder; no Dense, no unit length. What the `jxm/gtr__nq__32`
  models of vec2text (Morris et al., arXiv 2310.06816) were trained on.
- `"st_dense_norm"`: the whole SentenceTransformer: mean, Dense(768, 768) without bias, unit length. What the
  `ielabgroup/vec2text_gtr-base-st` models were trained on.
- `"mean_norm"`: the mean at unit length, without the Dense.

`None` stands for whatever a SentenceTransformer gives. Any model with mean pooling can be used in the first and the
last one, any that also has such a Dense in all three. A text without a token (possible where a tokenizer adds no
special token) has the zero vector in all of them: `Pooling` divides by at least 1e-9, `Normalize` leaves zeros alone.
"""

import numpy as np
from sklearn.preprocessing import normalize

from ..modeling.configuration_matryoshka_funnel import EMBEDDING_CONVENTIONS
from .vectors import check_vectors


# float32 vectors of unit length are within 1e-6 of it; those that went through half precision within 1e-3.
_EXACT_UNIT, _ROUGH_UNIT = 1e-5, 1e-2


def check_convention_name(convention: str | None) -> None:
    """Raise `ValueError` unless it is one of `EMBEDDING_CONVENTIONS` or `None`."""
    if convention is not None and convention not in EMBEDDING_CONVENTIONS:
        known = ", ".join(map(repr, EMBEDDING_CONVENTIONS))
        raise ValueError(f"there is no embedding convention {convention!r}; give one of {known}, or None")


def check_convention(expected: str | None, found: str | None, *, what: str = "the embeddings") -> None:
    """Refuses embeddings of another convention than those that a model was trained on.

    Args:
        expected (`str`, *optional*):
            Convention of the training; `None` states none and accepts all.
        found (`str`, *optional*):
            Convention of what is given, such as [`detect_convention`] of an encoder.
        what (`str`, *optional*, defaults to `"the embeddings"`):
            What to call that in the error.

    Raises:
        ValueError: if they differ.
    """
    check_convention_name(expected)
    if expected not in (None, found):
        follow = "follow none of the known conventions" if found is None else f"follow the convention {found!r}"
        raise ValueError(
            f"{what} {follow}, but {expected!r} is needed; encode the texts with load_encoder(..., {expected!r})"
        )


def check_lengths(embeddings: np.ndarray, convention: str | None) -> None:
    """Refuses vectors whose lengths say that they follow another convention; zero vectors are left alone.

    Args:
        embeddings (`np.ndarray` of shape `(n, dim)`):
            The vectors.
        convention (`str`, *optional*):
            Their convention as stated.

    Raises:
        ValueError: if raw means all have unit length, or a vector of the other two conventions has not.
    """
    check_convention_name(convention)
    lengths = _lengths(embeddings)
    away = np.where(lengths > 0, np.abs(lengths - 1), 0)
    if convention == "raw_mean" and away.max() < _EXACT_UNIT and lengths.any():
        raise ValueError("the embeddings all have unit length, so they follow no 'raw_mean', which does not normalise")
    if convention in ("st_dense_norm", "mean_norm") and away.max() > _ROUGH_UNIT:
        row = int(away.argmax())
        raise ValueError(
            f"embeddings of the convention {convention!r} have unit length, got length {lengths[row]:.4g} in row {row}"
        )


def mean_radius(embeddings: np.ndarray) -> float:
    """Mean length of raw means: what a vector of `"mean_norm"` is multiplied by to become one of `"raw_mean"`.

    Args:
        embeddings (`np.ndarray` of shape `(n, dim)`):
            Embeddings of the convention `"raw_mean"`.
    """
    return float(_lengths(check_vectors(embeddings, name="embeddings")).mean(dtype=np.float64))


def check_conversion(source: str | None, target: str | None, radius: float | None = None) -> None:
    """Raise `ValueError` unless [`convert_embeddings`] can turn `source` into `target`."""
    check_convention_name(source)
    check_convention_name(target)
    if source == target or (source, target) == ("raw_mean", "mean_norm"):
        return
    if (source, target) != ("mean_norm", "raw_mean"):
        named = "of no stated convention" if source is None else f"of the convention {source!r}"
        raise ValueError(
            f"embeddings {named} cannot be turned into {target!r} ones; encode the texts with "
            f"load_encoder(..., {target!r})"
        )
    if radius is None or not 0 < radius < float("inf"):
        raise ValueError(
            f"'mean_norm' embeddings become 'raw_mean' ones only with the mean length of raw ones, a positive number "
            f"that mean_radius(raw_embeddings) gives; got {radius}"
        )


def convert_embeddings(
    embeddings: np.ndarray, source: str | None, target: str, radius: float | None = None
) -> np.ndarray:
    """Embeddings of one convention as those of another, where that needs no text.

    Args:
        embeddings (`np.ndarray` of shape `(n, dim)`):
            The embeddings.
        source (`str`, *optional*):
            Their convention.
        target (`str`):
            The convention wanted: `"raw_mean"` becomes `"mean_norm"` exactly, by unit length; `"mean_norm"` becomes
            `"raw_mean"` up to its length, of which only the mean is known. The Dense of `"st_dense_norm"` is not
            undone.
        radius (`float`, *optional*):
            [`mean_radius`] of raw embeddings, for the second one.

    Returns:
        `np.ndarray` of shape `(n, dim)`: float32; of unit length in the two conventions that have it, also where
        `embeddings`, such as reconstructions, had another. A zero vector stays one.

    Raises:
        ValueError: if the embeddings are bad or there is no such conversion; it names both conventions.
    """
    check_conversion(source, target, radius)
    embeddings = check_vectors(embeddings, name="embeddings")
    if source == target and target in (None, "raw_mean"):
        return embeddings
    unit = normalize(embeddings)
    return unit * np.float32(radius) if target == "raw_mean" else unit


def _lengths(embeddings: np.ndarray) -> np.ndarray:
    # No temporary array of the size of the embeddings, as np.linalg.norm makes.
    return np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings))
