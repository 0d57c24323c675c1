"""All levels of a trained adaptor, as repos, and their way to the Hub."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import CommitOperationAdd, HfApi
from sentence_transformers import SentenceTransformer
from tqdm.auto import tqdm

from ..modeling.modeling_matryoshka_adaptor import MatryoshkaAdaptorModel
from .cards import UNKNOWN_MODEL_ID
from .export import card_details, export_level, load_base
from .exported_level import ExportedLevel
from .output_folder import RECORD_FILE, check_output_dir


if TYPE_CHECKING:
    from ..evaluation.curve import Curve

FULL = "full"


@dataclass(frozen=True)
class Family:
    """An exported family.

    Args:
        folder (`Path`): The folder that holds all repos.
        levels (`dict[str, ExportedLevel]`): The repo of each level, the smallest first.
        full ([`ExportedLevel`]): The repo that holds all levels in one.
    """

    folder: Path
    levels: dict[str, ExportedLevel]
    full: ExportedLevel

    @classmethod
    def from_folder(cls, folder: str | os.PathLike) -> "Family":
        """The family that [`export_family`] left in a folder.

        Raises:
            FileNotFoundError: If the folder holds no `full/` export.
        """
        folder = Path(folder)
        full = ExportedLevel.from_folder(folder / FULL)
        exported = [ExportedLevel.from_folder(record.parent) for record in folder.glob(f"*/{RECORD_FILE}")]
        exported.sort(key=lambda level: level.dim)
        return cls(folder, {level.level: level for level in exported if level.folder.name != FULL}, full)

    def push(self, repo_id: str, private: bool | None = None, collection: bool = True) -> list[str]:
        """Push every repo in one commit: `full` as `repo_id`, the levels as `repo_id-<level>`.

        Args:
            repo_id (`str`): Name on the Hub, `"user/name"`.
            private (`bool`, *optional*): Whether new repos are private; by default the setting of the account.
            collection (`bool`, *optional*, defaults to `True`): Whether to list the repos in a Collection.

        Returns:
            `list[str]`: Ids of the repos, the full one first.
        """
        api = HfApi()
        repos = {repo_id: self.full, **{f"{repo_id}-{name}": level for name, level in self.levels.items()}}
        pushed = []
        for name, level in tqdm(repos.items(), desc="Pushing", unit="repo"):
            # The Hub's own answer: it holds the user where `repo_id` does not.
            name = api.create_repo(name, private=private, exist_ok=True).repo_id
            api.create_commit(name, _commit(level.folder, name), commit_message=f"Upload {level.folder.name}")
            pushed.append(name)
        if collection:
            namespace, _, title = pushed[0].partition("/")
            slug = api.create_collection(title, namespace=namespace, private=bool(private), exists_ok=True).slug
            for name, level in zip(pushed, repos.values(), strict=True):
                note = f"{', '.join(map(str, level.matryoshka_dims))} dimensions"
                api.add_collection_item(slug, name, "model", note=note, exists_ok=True)
        return pushed


def export_family(
    model: MatryoshkaAdaptorModel,
    output_dir: str | os.PathLike,
    *,
    base_model: SentenceTransformer | str | os.PathLike | None = None,
    levels: Sequence[int | str] | None = None,
    overwrite: bool = False,
    base_model_id: str | None = None,
    license: str | None = None,
    curves: Sequence["Curve"] = (),
    plot: str | os.PathLike | None = None,
    tags: Sequence[str] = (),
) -> Family:
    """Write one repo a level (stock wherever exact) and `full/`, which holds all levels with remote code.

    Args:
        model ([`MatryoshkaAdaptorModel`]): The trained adaptor.
        output_dir (`str` or `os.PathLike`): Folder that gets one folder a level, such as `d64/`, and `full/`.
        levels (`Sequence`, *optional*): Names or indices of the levels to write; all by default.

    The other arguments, and what is raised, are those of [`export_level`].

    Returns:
        [`Family`]: What was written.
    """
    folder = Path(output_dir)
    names = [model.config.level_name(level) for level in (model.config.levels if levels is None else levels)]
    card_details(model, base_model_id, license, curves, plot, tags)
    for name in (*names, FULL):
        check_output_dir(folder / name, overwrite)
    settings = {
        "base_model": load_base(base_model, model),
        "overwrite": overwrite,
        "base_model_id": base_model_id,
        "license": license,
        "curves": curves,
        "plot": plot,
        "tags": tags,
    }
    exported = {}
    with tqdm(total=len(names) + 1, desc="Exporting", unit="repo") as progress:
        for name in names:
            exported[name] = export_level(model, name, folder / name, **settings)
            progress.update()
        full = export_level(model, None, folder / FULL, stock=False, **settings)
        progress.update()
    return Family(folder, exported, full)


def _commit(folder: Path, repo_id: str) -> list[CommitOperationAdd]:
    """All files of a repo, its card with its name filled in."""
    operations = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = str(file)
        if file == folder / "README.md":
            content = file.read_text(encoding="utf-8").replace(UNKNOWN_MODEL_ID, repo_id).encode()
        operations.append(CommitOperationAdd(file.relative_to(folder).as_posix(), content))
    return operations
