"""All levels of a trained model, as repos."""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from sentence_transformers import SentenceTransformer
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.files import default_cache_dir
from .cards import CardDetails
from .export import ExportJob
from .family import Family, load_family
from .manifest import FULL, MANIFEST_FILE
from .output_folder import check_output_dir, staged_folders
from .push import check_push


def export_family(
    model: PreTrainedModel | SentenceTransformer,
    output: str | os.PathLike,
    *,
    format: str = "auto",
    base_model: SentenceTransformer | str | os.PathLike | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    levels: Sequence[int | str] | None = None,
    card: CardDetails | None = None,
    shard_by_level: bool = False,
    onnx: bool = False,
    overwrite: bool = False,
    private: bool | None = None,
) -> Family:
    """Write one repo a level, each in the strongest form that is exact, and `full/`, which holds all levels.

    The repos appear together and replace an earlier family as a whole, also the levels that this one does not have. An
    interrupted or refused export leaves what was there before.

    Args:
        model (`PreTrainedModel` or `SentenceTransformer`): The nested model, see [`export_level`].
        output (`str` or `os.PathLike`): A folder that gets one folder a level, such as `d64/`, and `full/`; or a Hub
            id `"user/name"`, which gets the repos `user/name` and `user/name-d64` (see [`push_family`]). A string of
            two parts is a Hub id unless a folder of that name, or of its first part, exists; write `./user/name` for
            a folder.
        levels (`Sequence`, *optional*): Names or indices of the levels to write, in any order; all by default.
        private (`bool`, *optional*): Whether the repos on the Hub are private, see [`push_family`].

    The other arguments, and what is raised, are those of [`export_level`].

    Returns:
        [`Family`]: What was written.
    """
    repo_id = str(output) if _is_hub_id(output) else None
    # Kept, so that an interrupted push goes on without a second export of what is unchanged.
    folder = Path(output) if repo_id is None else default_cache_dir() / "families" / repo_id.replace("/", "--")
    job = ExportJob.prepare(model, format, base_model, tokenizer, card, shard_by_level, onnx)
    config = job.model.config
    wanted = {config.level_name(level) for level in (config.levels if levels is None else levels)}
    names = [*(name for name in config.levels if name in wanted), FULL]
    if repo_id is not None:
        _check_push(repo_id, names)
    exporters = [job.exporter(name) for name in names]
    stale = _repos_of_earlier_family(folder) - set(names)
    for exporter in exporters:
        job.check_form(exporter)
        check_output_dir(folder / exporter.name, overwrite)
    with staged_folders([folder / exporter.name for exporter in exporters]) as folders:
        written = []
        for exporter, staged in zip(tqdm(exporters, desc="Exporting", unit="repo"), folders, strict=True):
            written.append(job.write(exporter, staged))
        repos = [one.repo for one in written]
        for one, staged in zip(written, folders, strict=True):
            job.describe(staged, one, repos)
    for name in stale:
        shutil.rmtree(folder / name)
    family = load_family(folder)
    if repo_id is None:
        return family
    family.push(repo_id, private=private)
    return load_family(repo_id)


def _repos_of_earlier_family(folder: Path) -> set[str]:
    """Names of the repos that an earlier export left in a folder."""
    try:
        earlier = load_family(folder / FULL)
    except (OSError, ValueError):
        return set()
    return {name for name in earlier.repos if (folder / name / MANIFEST_FILE).is_file()}


def _check_push(repo_id: str, names: list[str]) -> None:
    try:
        check_push(repo_id, names)
    except (PermissionError, ValueError) as error:
        raise type(error)(f"{str(error).removesuffix('.')} (or write ./{repo_id} for a folder)") from error


def _is_hub_id(output: str | os.PathLike) -> bool:
    if not isinstance(output, str) or not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", output):
        return False
    return not Path(output).exists() and not Path(output).parent.exists()
