"""The texts that a sentence encoder is distilled on, and pairs of them."""

import hashlib
from collections.abc import Iterable

from ..data.pairs import iter_pairs
from ..data.sentences import split_sentences
from ..data.texts import iter_texts, with_fields
from .mamba_recipe import MambaRecipe
from .text_options import TextOptions


# Sentences of a longer text are added where they say something by themselves and are no lists run together.
SENTENCE_CHARACTERS = range(20, 301)


def gather_texts(recipe: TextOptions) -> list[str]:
    """Texts of the files of a recipe, each once, without those to be excluded, in an order that only the texts and the
    seed decide.

    Two texts are the same if they differ in case, white space or the full stop at their end only.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If one cannot be read, or nothing is left.
    """
    excluded = _excluded(recipe)
    found: dict[str, str] = {}
    for path, field in with_fields(recipe.texts, recipe.text_field):
        own: dict[str, str] = {}
        for text in iter_texts(path, field):
            for part in _parts(text) if recipe.split_sentences else [text]:
                key = _key(part)
                if key and key not in found and key not in excluded:
                    own.setdefault(key, part[: recipe.max_characters])
        if recipe.max_texts_per_file is not None:
            own = {key: own[key] for key in _shuffled(own, recipe.seed)[: recipe.max_texts_per_file]}
        found |= own
    if not found:
        raise ValueError(f"{', '.join(map(str, recipe.texts))} hold no text to train on that is not excluded")
    return [found[key] for key in _shuffled(found, recipe.seed)]


def gather_pairs(recipe: MambaRecipe, held_out: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of the files of a recipe, each once, without those that have an excluded or a held-out text, or twice the
    same.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If one cannot be read, or files are given and no pair is left.
    """
    excluded = _excluded(recipe) | {_key(text) for text in held_out}
    found: dict[str, tuple[str, str]] = {}
    for path, fields in with_fields(recipe.pairs or [], recipe.pair_fields or ["anchor:positive"]):
        own: dict[str, tuple[str, str]] = {}
        for pair in iter_pairs(path, *fields.split(":")):
            first, second = map(_key, pair)
            cut = (pair[0][: recipe.max_characters], pair[1][: recipe.max_characters])
            key = f"{first}\t{second}"
            # A long text that is held out is known as it was cut.
            if first and second and first != second and not excluded & {first, second, *map(_key, cut)}:
                own.setdefault(key, cut)
        if recipe.max_texts_per_file is not None:
            own = {key: own[key] for key in _shuffled(own, recipe.seed)[: recipe.max_texts_per_file]}
        found |= own
    if recipe.pairs and not found:
        raise ValueError(f"{', '.join(map(str, recipe.pairs))} hold no pair to train on that is not excluded")
    return [found[key] for key in _shuffled(found, recipe.seed)]


def _excluded(recipe: TextOptions) -> set[str]:
    excluded = set()
    for path, field in with_fields(recipe.exclude or [], recipe.exclude_field):
        excluded |= {_key(text) for text in iter_texts(path, field)}
    return excluded


def _parts(text: str) -> list[str]:
    """The text, and its sentences where it has several."""
    sentences = split_sentences(text)
    if len(sentences) < 2:
        return [text]
    return [text, *(sentence for sentence in sentences if len(sentence) in SENTENCE_CHARACTERS)]


def _key(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".").rstrip()


def _shuffled(keys: Iterable[str], seed: int) -> list[str]:
    """In an order that does not depend on the other texts."""
    return sorted(keys, key=lambda key: hashlib.blake2b(f"{seed} {key}".encode("utf-8", "replace")).digest())
