"""Groups of the words of a vocabulary, cut from the noun tree of WordNet."""

import gzip
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch

from .taxonomy import Taxonomy


SYNSETS = "synsets.jsonl.gz"
# Marks of the tokens that begin a word (byte-level BPE, SentencePiece) and of those that do not (WordPiece).
BEGINNINGS, CONTINUATION = ("Ġ", "▁"), "##"
# Shorter words are nearly all something else in a text than the noun of that spelling (in: inch, as: arsenic).
SHORTEST = 3
# Endings of plurals and what takes their place, as the morphology of WordNet itself has them (morphy, for nouns).
PLURALS = (
    *(("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh")),
    *(("men", "man"), ("ies", "y"), ("s", "")),
)


class WordNetNouns:
    """The nouns of WordNet (Miller 1995), as one tree: each synset below the first of its hypernyms.

    The file has no frequencies of meanings. A word means that one of its synsets which has the most synsets below it,
    and of equal ones the first that is named by the word: `dog` the animal and not the sausage, `bank` the
    institution, `three` the number and not the trey of a deck.

    Args:
        path (`str` or `Path`): Folder with `synsets.jsonl.gz`, or such a file: JSON lines with `id` (nouns end in
            `n`), `lemmas` and `hypernyms` (ids).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line is no synset, a hypernym is missing, there is no noun, or hypernyms go round in a circle.
    """

    def __init__(self, path: str | Path):
        path = find_synsets(path)
        self.names: dict[str, str] = {}
        self.parents: dict[str, str | None] = {}
        lemmas: dict[str, list[tuple[str, bool]]] = {}
        opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")
        with opened as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    synset = json.loads(line)
                    key, words, above = str(synset["id"]), list(synset["lemmas"]), list(synset["hypernyms"])
                    name = f"{words[0]} {key}"
                except (ValueError, KeyError, TypeError, IndexError):
                    raise ValueError(f"line {number} of {path} is no synset with id, lemmas and hypernyms") from None
                if key.endswith("n"):
                    self.names[key] = name
                    self.parents[key] = above[0] if above else None
                    for word in words:
                        lemmas.setdefault(word, []).append((key, word == words[0]))
        if not self.names:
            raise ValueError(f"{path} has no nouns: no id ends in n")
        below: Counter[str] = Counter()
        for key, parent in self.parents.items():
            if parent is not None and parent not in self.parents:
                raise ValueError(f"hypernym {parent} of synset {key} is not in {path}")
            below.update(self.path(key))
        self.meanings = {
            word: max(found, key=lambda meaning: (below[meaning[0]], meaning[1]))[0] for word, found in lemmas.items()
        }

    def path(self, key: str) -> list[str]:
        """The synsets from the root down to one."""
        found = []
        step: str | None = key
        while step is not None:
            if step in found:
                raise ValueError(f"hypernyms of synset {key} go round in a circle")
            found.append(step)
            step = self.parents[step]
        return found[::-1]

    def meaning(self, word: str) -> str | None:
        """The synset of a word as it is spelt, else in lower case, else of its singular; `None` if there is none."""
        for spelt in dict.fromkeys((word, word.lower())):
            if spelt in self.meanings:
                return self.meanings[spelt]
        for ending, other in PLURALS:
            single = word.lower().removesuffix(ending) + other
            if word.lower().endswith(ending) and len(single) >= SHORTEST and single in self.meanings:
                return self.meanings[single]
        return None


class WordNetTaxonomy:
    """A [`Taxonomy`] for any vocabulary: words with the same hypernym at some depth of the noun tree are a group.

    A group is as deep as its prefix says, or as the meaning of a word is where that is less deep, so those of a longer
    prefix lie inside those of a shorter one. Tokens that are no noun, and pieces of words, are a group of their own.

    Args:
        path (`str` or `Path`): As of [`WordNetNouns`].
        depths (`Mapping[int, int]`): For each prefix length how far below the root its groups are, in hypernyms; at
            least as far for a longer prefix.
        min_tokens (`int`, *optional*, defaults to 1): Smallest group: the tokens of a smaller one are with those of
            the hypernym above that are in no deeper group.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If `depths` has no valid value, or `min_tokens` is below 1.
    """

    def __init__(self, path: str | Path, depths: Mapping[int, int], min_tokens: int = 1):
        numbers = [number for pair in depths.items() for number in pair] if isinstance(depths, Mapping) else []
        if not numbers or not all(isinstance(number, int) and number > 0 for number in numbers):
            raise ValueError(f"depths must map prefix lengths to depths of WordNet, all above 0, but is {depths!r}")
        ordered = [depths[width] for width in sorted(depths)]
        if ordered != sorted(ordered):
            raise ValueError(f"depths must not decrease with the prefix, but are {dict(depths)}")
        if not isinstance(min_tokens, int) or min_tokens < 1:
            raise ValueError(f"min_tokens must be at least 1, but is {min_tokens!r}")
        self.path, self.min_tokens = find_synsets(path), min_tokens
        self.depths = {width: depths[width] for width in sorted(depths)}

    @property
    def widths(self) -> list[int]:
        """The prefix lengths, smallest first."""
        return list(self.depths)

    def taxonomy(self, vocabulary: Mapping[str, int]) -> Taxonomy:
        """The groups of a vocabulary, named by their synsets.

        Args:
            vocabulary (`Mapping[str, int]`): Tokens and their ids, as `tokenizer.get_vocab()` gives them.

        Raises:
            ValueError: If none of its tokens is a noun.
        """
        nouns = WordNetNouns(self.path)
        paths = {}
        for token, word in whole_words(vocabulary).items():
            meaning = nouns.meaning(word)
            if meaning is not None:
                paths[token] = nouns.path(meaning)
        if not paths:
            raise ValueError(f"none of the {len(vocabulary)} tokens is a word that is a noun of WordNet")
        sizes = Counter(step for path in paths.values() for step in path)
        groups: dict[int, dict[str, list[str]]] = {}
        for width, depth in self.depths.items():
            named = groups.setdefault(width, {})
            for token, path in paths.items():
                # Where even the whole tree has fewer tokens, its root is the group.
                large = [step for step in path[: depth + 1] if sizes[step] >= self.min_tokens] or path[:1]
                named.setdefault(nouns.names[large[-1]], []).append(token)
        return Taxonomy(groups)

    def group_ids(self, vocabulary: Mapping[str, int]) -> dict[int, torch.Tensor]:
        """As [`Taxonomy.group_ids`]."""
        return self.taxonomy(vocabulary).group_ids(vocabulary)


def find_synsets(path: str | Path) -> Path:
    """The file of synsets.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = Path(path)
    file = path / SYNSETS if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"WordNet {file} does not exist; give a folder with {SYNSETS}, or the file")
    return file


def whole_words(vocabulary: Mapping[str, int]) -> dict[str, str]:
    """The tokens that begin a word, of at least three letters, and that word, in the order of their ids.

    Where tokens have a mark for the beginning of a word, those without are pieces; so are those with `##`. Whether a
    token with the mark is all of a word in a text cannot be seen here (`Ġcon` of `Ġcon` `tain`).
    """
    marked = any(token.startswith(BEGINNINGS) and len(token) > 1 for token in vocabulary)
    found = {}
    for token in sorted(vocabulary, key=vocabulary.__getitem__):
        begins = token.startswith(BEGINNINGS) if marked else not token.startswith(CONTINUATION)
        word = token[1:] if marked else token
        if begins and len(word) >= SHORTEST and re.fullmatch(r"[^\W\d_]+", word):
            found[token] = word
    return found
