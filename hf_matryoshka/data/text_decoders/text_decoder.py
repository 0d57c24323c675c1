"""What decodes embeddings to texts, and how far its texts are from what was asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from sklearn.preprocessing import normalize

from ..vectors import check_vectors


@runtime_checkable
class TextDecoder(Protocol):
    """Turns embeddings into texts.

    Attributes:
        embedding_convention (`str`, *optional*): Convention of the embeddings that it is given, one of
            `EMBEDDING_CONVENTIONS`; `None` if it is that of some SentenceTransformer.
    """

    embedding_convention: str | None

    def decode(self, embeddings: np.ndarray) -> list[str]:
        """
        Args:
            embeddings (`np.ndarray` of shape `(n, dim)`): Embeddings, which no text need have.

        Returns:
            `list[str]`: `n` texts, in order.
        """
        ...


@dataclass(frozen=True)
class RoundTrip:
    """Texts of embeddings and how near their own embeddings come.

    Args:
        texts (`list[str]`): The decoded texts.
        cosines (`np.ndarray` of shape `(n,)`): Cosine of each text's embedding with the embedding that was asked for.
    """

    texts: list[str]
    cosines: np.ndarray

    @property
    def mean(self) -> float:
        """Mean cosine."""
        return float(self.cosines.mean(dtype=np.float64))

    @property
    def p5(self) -> float:
        """The cosine that 95% of the texts exceed."""
        return float(np.percentile(self.cosines, 5))


def round_trip_cosine(
    decoder: TextDecoder,
    encode: Callable[[list[str]], np.ndarray],
    embeddings: np.ndarray,
    reference: np.ndarray | None = None,
) -> RoundTrip:
    """Decodes embeddings, encodes the texts again and compares.

    The cosine of an embedding with its reconstruction says little about the text that can be made of it: what counts
    is the cosine after the round trip.

    Args:
        decoder ([`TextDecoder`]):
            The decoder.
        encode (`Callable`):
            Texts in, embeddings of shape `(n, dim)` out, in the convention of the embeddings (which length does not
            matter), such as `SentenceTransformer.encode`.
        embeddings (`np.ndarray` of shape `(n, dim)`):
            What to decode, such as the reconstructions of a funnel.
        reference (`np.ndarray` of shape `(n, dim)`, *optional*):
            What to compare with, such as the embeddings that were reconstructed; `embeddings` by default.

    Returns:
        [`RoundTrip`]: the texts, their cosines, and the mean and 5th percentile of these. The cosine of a zero vector
        is 0.

    Raises:
        ValueError: if vectors are bad, or the decoder or the encoder gives another number of rows or another width.
    """
    embeddings = check_vectors(embeddings, name="embeddings")
    reference = check_vectors(embeddings if reference is None else reference, name="reference")
    if len(reference) != len(embeddings):
        raise ValueError(f"there are {len(embeddings)} embeddings, but {len(reference)} of the reference")
    texts = decoder.decode(embeddings)
    if len(texts) != len(embeddings):
        raise ValueError(f"the decoder gave {len(texts)} texts for {len(embeddings)} embeddings")
    encoded = check_vectors(encode(texts), width=reference.shape[1], name="the embeddings of the decoded texts")
    if len(encoded) != len(texts):
        raise ValueError(f"the encoder gave {len(encoded)} embeddings for {len(texts)} texts")
    return RoundTrip(texts, (normalize(encoded) * normalize(reference)).sum(axis=1))
