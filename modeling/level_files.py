"""Where the files of a checkpoint in shards by level come from: a folder, or a Hub repo and its cache."""

import json
import os
from pathlib import Path

from huggingface_hub import (
    _CACHED_NO_EXIST,
    ResolvedRevision,
    hf_hub_download,
    is_offline_mode,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from .level_shards import LEVEL_SHARDS, check_shard, is_weight_file, read_level_index


def fetch_file(source: str, name: str, *, subfolder: str = "", **hub) -> str | None:
    """A file of a folder or repo.

    Args:
        source (`str`): A folder or a repo id.
        name (`str`): Name of the file.
        hub: Arguments of `from_pretrained` that say where files come from: `cache_dir`, `force_download`,
            `local_files_only`, `revision`, `subfolder`, `token`; with `dry_run=True` nothing is downloaded.

    Returns:
        `str` or `None`: Its path; `None` if there is no such file, or no such repo.

    Raises:
        OSError: If the Hub does not give it.
    """
    if os.path.isdir(source):
        path = os.path.join(source, subfolder, name)
        return path if os.path.isfile(path) else None
    try:
        if not hub.get("force_download") and _is_known_absent(source, name, subfolder, hub):
            return None
        return hf_hub_download(source, name, subfolder=subfolder, **hub)
    except Exception as error:
        # Without asking, nobody knows more than the cache; with asking, silence does not mean that there is no file.
        if isinstance(error, LocalEntryNotFoundError) and _is_offline(source, hub):
            return None
        # If the repo itself is not there, transformers says so.
        absent = (EntryNotFoundError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError)
        if isinstance(error, absent) and not isinstance(error, LocalEntryNotFoundError):
            return None
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise OSError(f"{name} of {source} could not be fetched: {reason}") from error


def _is_offline(source: str, hub: dict) -> bool:
    return not os.path.isdir(source) and bool(hub.get("local_files_only") or is_offline_mode())


def _is_known_absent(source: str, name: str, subfolder: str, hub: dict) -> bool:
    """Whether an earlier load of the same commit found out that there is no such file."""
    revision = hub.get("revision")
    commit = revision.resolved if isinstance(revision, ResolvedRevision) else revision
    path = f"{subfolder}/{name}" if subfolder else name
    known = try_to_load_from_cache(source, path, cache_dir=hub.get("cache_dir"), revision=commit)
    return commit is not None and known is _CACHED_NO_EXIST


def fetch_level_index(source: str, **hub) -> dict | None:
    """The index of a folder or repo that is saved in shards by level.

    Args:
        source (`str`): A folder or a repo id.
        hub: As for [`fetch_file`].

    Returns:
        `dict` or `None`: The index; `None` if the weights are saved in another way, or if nothing is there at all.

    Raises:
        OSError: If the Hub does not answer.
        ValueError: If the index is damaged or from a newer version.
    """
    path = fetch_file(source, SAFE_WEIGHTS_INDEX_NAME, **hub)
    index = None if path is None else read_level_index(path, source)
    # As in transformers: an unsharded file counts before an index, which may have been left by an earlier push.
    if index is None or fetch_file(source, SAFE_WEIGHTS_NAME, dry_run=True, **hub) is not None:
        return None
    return index


def fetch_level_shards(source: str, index: dict, level: str, **hub) -> list[str]:
    """Paths of the shards of a level, each compared with its sha256 in the index.

    Raises:
        OSError: If a shard is missing, cannot be fetched or is not the one of the index.
        ValueError: If the index has no such level.
    """
    levels = index[LEVEL_SHARDS]["levels"]
    if level not in levels:
        raise ValueError(f"the index of {source} has no level {level!r}; it has {', '.join(levels)}")
    paths = []
    for shard in levels[level]:
        path = fetch_file(source, shard, **hub)
        if path is None and _is_offline(source, hub):
            raise FileNotFoundError(
                f"{shard} of {source}, which its level {level} needs, is not in the cache and the Hub may not be "
                "asked; load this level once without local_files_only or HF_HUB_OFFLINE"
            )
        if path is None:
            raise FileNotFoundError(f"{source} has no {shard}, which its level {level} needs; save or push it again")
        check_shard(path, shard, index, source)
        paths.append(path)
    return paths


def indexed_files(folder: str | os.PathLike) -> tuple[set[str], bool]:
    """Which weight files the index in a folder lists, and whether they are shards by level."""
    path = Path(folder, SAFE_WEIGHTS_INDEX_NAME)
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        listed = {name for name in index["weight_map"].values() if is_weight_file(name)}
        return listed, LEVEL_SHARDS in index
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        # None, or a damaged one, which is no reason not to save.
        return set(), False
