"""YAML files that map names to values."""

from pathlib import Path
from typing import Any

import yaml


def read_mapping(path: str | Path, what: str = "config", content: str = "option names to values") -> dict[Any, Any]:
    """The mapping that a YAML file holds; an empty file is an empty one.

    Args:
        path (`str` or `Path`): The file.
        what (`str`, *optional*, defaults to `"config"`): What the messages call it.
        content (`str`, *optional*, defaults to `"option names to values"`): What it should map to what.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no YAML, or holds something else than a mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{what} {path} does not exist")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    # A date that does not exist is a plain `ValueError`, and what is nested too deep a `RecursionError`.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{what} {path} is no YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{what} {path} must map {content}, but it is a {type(values).__name__}")
    return values
