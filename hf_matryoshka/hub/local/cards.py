"""The metadata at the top of a README.md."""

import json
import re
from typing import Any

import yaml

from .errors import HubError
from .names import check_repo_id


_FRONT_MATTER = re.compile(r"^\s*---[ \t]*\r?\n(.*?)(?:\r?\n)?---[ \t]*(?:\r?\n|$)", re.DOTALL)
_TEXTS = ("library_name", "pipeline_tag", "license", "license_name", "sdk")


def read_metadata(card: str) -> dict[str, Any]:
    """The metadata of a card, empty if there is none.

    Raises:
        ValueError: If it is no YAML mapping.
    """
    match = _FRONT_MATTER.match(card)
    if not match:
        return {}
    try:
        metadata = yaml.safe_load(match[1])
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # the last for a date that no calendar has
        raise ValueError(f"the metadata is no YAML: {' '.join(str(error).split())}") from None
    try:
        json.dumps(metadata, default=str, skipkeys=True)  # as it is told to clients
    except (RecursionError, ValueError):
        raise ValueError("the metadata contains itself") from None
    if metadata is not None and not isinstance(metadata, dict):
        raise ValueError(f"the metadata must be a mapping, not a {type(metadata).__name__}")
    return metadata or {}


def check_card(card: str) -> tuple[list[str], list[str]]:
    """Errors and warnings of a card's metadata, as far as the Hub's own rules can be told."""
    try:
        metadata = read_metadata(card)
    except ValueError as error:
        return [str(error)], []
    if not metadata:
        return [], ["empty or missing yaml metadata in repo card"]
    errors = [
        f'"{key}" must be a string' for key in _TEXTS if key in metadata and not isinstance(metadata[key], str | list)
    ]
    if not _texts(metadata.get("tags") or []):
        errors.append('"tags" must be an array of strings')
    for repo_id in _as_list(metadata.get("base_model")):
        try:
            check_repo_id(repo_id)
        except HubError:
            errors.append(f'"base_model" with value {repo_id!r} is not valid: use a model id from the Hub')
    index = metadata.get("model-index")
    if index is not None and not _is_index(index):
        errors.append('"model-index" must be an array of objects with a "name" and an array "results"')
    return errors, []


def _is_index(index: Any) -> bool:
    return isinstance(index, list) and all(
        isinstance(model, dict)
        and isinstance(model.get("name"), str)
        and isinstance(model.get("results"), list)
        and all(isinstance(row, dict) and isinstance(row.get("metrics"), list) for row in model["results"])
        for model in index
    )


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def card_tags(metadata: dict[str, Any]) -> list[str]:
    """The tags that the Hub shows for a card's metadata."""
    tags = list(metadata["tags"]) if _texts(metadata.get("tags")) else []
    tags += [metadata[key] for key in ("library_name", "pipeline_tag") if isinstance(metadata.get(key), str)]
    tags += [f"license:{name}" for name in _as_list(metadata.get("license"))]
    tags += [f"dataset:{name}" for name in _as_list(metadata.get("datasets"))]
    relation = metadata.get("base_model_relation")
    for name in _as_list(metadata.get("base_model")):
        tags += [f"base_model:{name}", *([f"base_model:{relation}:{name}"] if relation else [])]
    return list(dict.fromkeys(tags))
