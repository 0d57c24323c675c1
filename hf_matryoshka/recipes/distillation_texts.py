"""The texts that a sentence encoder is distilled on, and pairs of them."""

import hashlib
from collections.abc import Iterable
from typing import Any

from ..data.pairs import iter_pairs
from ..data.sentences import split_passages, split_sentences
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
        texts: dict[str, str] = {}
        # Counted apart from the texts only where they have a limit of their own.
        sentences = texts if recipe.max_sentences_per_file is None else {}
        for text in iter_texts(path, field):
            whole = split_passages(text, recipe.max_characters) if recipe.split_passages else [text]
            own = [(part, texts) for part in whole]
            if recipe.split_sentences:
                own += [(part, sentences) for part in _sentences(text)]
            for part, kind in own:
                key = _key(part)
                if key and key not in found and key not in excluded and key not in texts:
                    kind.setdefault(key, part[: recipe.max_characters])
        found |= _drawn(texts, recipe.max_texts_per_file, recipe.seed)
        if sentences is not texts:
            found |= _drawn(sentences, recipe.max_sentences_per_file, recipe.seed)
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
        found |= _drawn(own, recipe.max_texts_per_file, recipe.seed)
    if recipe.pairs and not found:
        raise ValueError(f"{', '.join(map(str, recipe.pairs))} hold no pair to train on that is not excluded")
    return [found[key] for key in _shuffled(found, recipe.seed)]


def _excluded(recipe: TextOptions) -> set[str]:
    excluded = set()
    for path, field in with_fields(recipe.exclude or [], recipe.exclude_field):
        excluded |= {_key(text) for text in iter_texts(path, field)}
    return excluded


def _sentences(text: str) -> list[str]:
    """The sentences of a text that has several."""
    sentences = split_sentences(text)
    if len(sentences) < 2:
        return []
    return [sentence for sentence in sentences if len(sentence) in SENTENCE_CHARACTERS]


def _drawn(texts: dict[str, Any], count: int | None, seed: int) -> dict[str, Any]:
    """So many of the texts at most."""
    return texts if count is None else {key: texts[key] for key in _shuffled(texts, seed)[:count]}


def _key(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".").rstrip()


def _shuffled(keys: Iterable[str], seed: int) -> list[str]:
    """In an order that does not depend on the other texts."""
    return sorted(keys, key=lambda key: hashlib.blake2b(f"{seed} {key}".encode("utf-8", "replace")).digest())
