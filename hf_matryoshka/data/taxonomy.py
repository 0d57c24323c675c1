"""Taxonomies of tokens: groups for each prefix length of the embeddings, finer ones for longer prefixes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from .yaml_mapping import read_mapping


# What [`read_mapping`] says of a file with one.
CONTENT = ("taxonomy", "prefix lengths to groups of tokens")


class Taxonomy:
    """Groups of tokens by prefix length.

    Args:
        groups (`Mapping[int, Mapping[str, Sequence[str]]]`): For each prefix length, the tokens of each group by its
            name. Tokens that no group of a length names are a group of their own, as in the vocabulary of any model
            there are some that nobody thought of.
        refine (`bool`, *optional*, defaults to `True`): Whether each group of a longer prefix must lie inside one of
            every shorter prefix, so that the groups are a tree.

    Raises:
        ValueError: If a token is in two groups of a length, a finer group crosses a coarser one, or there are none.
    """

    def __init__(self, groups: Mapping[int, Mapping[str, Sequence[str]]], refine: bool = True):
        if not groups or not all(groups.values()):
            raise ValueError("a taxonomy needs groups of tokens for at least one prefix length")
        self.groups = {
            width: {str(name): list(tokens) for name, tokens in groups[width].items()} for width in sorted(groups)
        }
        for width, named in self.groups.items():
            if not isinstance(width, int) or width < 1:
                raise ValueError(f"prefix lengths are positive numbers, but {width!r} is none")
            _group_of(width, named)
        if refine:
            widths = list(self.groups)
            for coarse, fine in zip(widths, widths[1:], strict=False):
                _check_refined(coarse, self.groups[coarse], fine, self.groups[fine])

    @property
    def widths(self) -> list[int]:
        """The prefix lengths, smallest first."""
        return list(self.groups)

    def group_ids(self, vocabulary: Mapping[str, int]) -> dict[int, torch.Tensor]:
        """The number of the group of each token.

        Args:
            vocabulary (`Mapping[str, int]`): Tokens and their ids, as `tokenizer.get_vocab()` gives them.

        Returns:
            `dict[int, torch.Tensor]`: For each prefix length, of shape `(tokens,)`.

        Raises:
            ValueError: If a token is not in the vocabulary.
        """
        found = {}
        for width, named in self.groups.items():
            ids = torch.full((max(vocabulary.values()) + 1,), len(named))
            for number, tokens in enumerate(named.values()):
                for token in tokens:
                    if token not in vocabulary:
                        raise ValueError(f"token {token!r} of the taxonomy is not in the vocabulary")
                    ids[vocabulary[token]] = number
            # Numbers of groups without a token would be classes that cannot be predicted.
            found[width] = torch.unique(ids, return_inverse=True)[1]
        return found

    @classmethod
    def from_yaml(cls, path: str | Path) -> "Taxonomy":
        """Reads a file that maps prefix lengths to groups, and those to lists of tokens or to a string of characters;
        `refine: false` beside them allows groups that cross.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no such mapping, or the groups are no taxonomy.
        """
        return cls.from_values(read_mapping(path, *CONTENT), path)

    @classmethod
    def from_values(cls, values: Mapping, path: str | Path) -> "Taxonomy":
        """What such a file holds.

        Raises:
            ValueError: If it maps to no groups, or the groups are no taxonomy.
        """
        values = dict(values)
        refine = values.pop("refine", True)
        for width, named in values.items():
            if not isinstance(width, int) or isinstance(width, bool):
                raise ValueError(f"taxonomy {path}: prefix lengths are whole numbers, but {width!r} is none")
            if not isinstance(named, dict) or not all(isinstance(tokens, (list, str)) for tokens in named.values()):
                raise ValueError(f"taxonomy {path}: {width!r} must map names of groups to their tokens")
        # YAML reads a bare digit as a number.
        groups = {
            width: {name: [str(token) for token in tokens] for name, tokens in named.items()}
            for width, named in values.items()
        }
        try:
            return cls(groups, refine)
        except ValueError as error:
            raise ValueError(f"taxonomy {path}: {error}") from None


def _group_of(width: int, named: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The group of each token."""
    found: dict[str, str] = {}
    for name, tokens in named.items():
        for token in tokens:
            if found.get(token, name) != name:
                raise ValueError(f"token {token!r} is in two groups of prefix {width}: {found[token]} and {name}")
            found[token] = name
    return found


def _check_refined(
    coarse: int, larger: Mapping[str, Sequence[str]], fine: int, smaller: Mapping[str, Sequence[str]]
) -> None:
    outer = _group_of(coarse, larger)
    for name, tokens in smaller.items():
        for token in tokens:
            if outer.get(token) != outer.get(tokens[0]):
                raise ValueError(
                    f"group {name} of prefix {fine} crosses groups of prefix {coarse}: {tokens[0]!r} is in "
                    f"{outer.get(tokens[0], 'none')}, {token!r} in {outer.get(token, 'none')}"
                )
    named = {token for tokens in smaller.values() for token in tokens}
    rest = [token for token in outer if token not in named]
    for token in rest:
        if outer[token] != outer[rest[0]]:
            raise ValueError(
                f"tokens that no group of prefix {fine} names would cross groups of prefix {coarse}: {rest[0]!r} is "
                f"in {outer[rest[0]]}, {token!r} in {outer[token]}"
            )
