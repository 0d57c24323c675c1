"""YAML files of groups of tokens, listed or cut from WordNet."""

from pathlib import Path
from typing import Any

from .taxonomy import CONTENT, Taxonomy
from .wordnet import WordNetTaxonomy
from .yaml_mapping import read_mapping


def read_hierarchy(path: str | Path) -> Taxonomy | WordNetTaxonomy:
    """What a file says about groups of tokens: `group_ids(vocabulary)` of it are those of a model.

    A file either lists tokens, as for [`Taxonomy.from_yaml`], or names a folder with WordNet, and the depth of its
    tree for each prefix length: `wordnet: ../shared/data/wordnet`, `depths: {8: 2, 16: 4}` and optionally
    `min_tokens: 20`. The folder is relative to where the command runs.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such mapping, or has other keys.
    """
    values = read_mapping(path, *CONTENT)
    if "wordnet" not in values:
        return Taxonomy.from_values(values, path)
    unknown = [key for key in values if key not in ("wordnet", "depths", "min_tokens")]
    if unknown:
        raise ValueError(f"taxonomy {path}: beside wordnet there are depths and min_tokens, but not {unknown[0]!r}")
    try:
        # Which refuses what is no mapping, nothing included.
        depths: Any = values.get("depths")
        return WordNetTaxonomy(str(values["wordnet"]), depths, values.get("min_tokens", 1))
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"taxonomy {path}: {error}") from None
