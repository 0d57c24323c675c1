"""Queries made from the documents themselves, for training without labelled queries."""

import random

from .retrieval import RetrievalDataset
from .sentences import split_sentences


def pseudo_queries(
    dataset: RetrievalDataset,
    *,
    titles: bool = True,
    sentences_per_document: int = 4,
    min_characters: int = 30,
    max_characters: int = 400,
    seed: int = 0,
) -> tuple[list[str], list[int]]:
    """Takes titles and sampled sentences of the documents as stand-ins for queries.

    Args:
        dataset ([`RetrievalDataset`]):
            Where the documents come from; its queries and judgements are not looked at.
        titles (`bool`, *optional*, defaults to `True`):
            Whether the title of a document is one of its queries.
        sentences_per_document (`int`, *optional*, defaults to 4):
            How many sentences of the text to draw at most; they keep their order.
        min_characters (`int`, *optional*, defaults to 30):
            Shorter sentences are left out. Titles may be shorter.
        max_characters (`int`, *optional*, defaults to 400):
            Longer sentences and titles are left out.
        seed (`int`, *optional*, defaults to 0):
            Seed of the draw.

    Returns:
        `tuple[list[str], list[int]]`: the texts, and for each the index of the document that it comes from.

    Raises:
        ValueError: if a length or a count makes no sense, or if no document gives a query.
    """
    if sentences_per_document < 0:
        raise ValueError(f"sentences_per_document must be 0 or more, got {sentences_per_document}")
    if not 1 <= min_characters <= max_characters:
        raise ValueError(
            f"min_characters must lie between 1 and max_characters ({max_characters}), got {min_characters}"
        )
    rng = random.Random(seed)
    texts: list[str] = []
    owners: list[int] = []
    for index, (title, text) in enumerate(zip(dataset.titles, dataset.texts, strict=True)):
        title = " ".join(title.split())
        chosen = [title] if titles and 0 < len(title) <= max_characters else []
        found = dict.fromkeys(s for s in split_sentences(text) if min_characters <= len(s) <= max_characters)
        sentences = [sentence for sentence in found if sentence not in chosen]
        drawn = rng.sample(range(len(sentences)), min(sentences_per_document, len(sentences)))
        chosen += [sentences[position] for position in sorted(drawn)]
        texts += chosen
        owners += [index] * len(chosen)
    if not texts:
        wanted = "a title or " * titles + f"a sentence of {min_characters} to {max_characters} characters"
        raise ValueError(f"no document of {dataset.name!r} has {wanted}")
    return texts, owners
