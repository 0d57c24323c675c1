"""A family of repos: in a folder or on the Hub, read without its weights."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..evaluation.curve import Curve
from ..evaluation.selection import select_level as select_point
from .manifest import FULL, MANIFEST_FILE, FamilyLevel, FamilyRepo, Manifest, check_weights


if TYPE_CHECKING:
    from .push import PushReport

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?", re.ASCII)
# Name of a folder beside another: no separator of any system, and no control character.
_FOLDER = re.compile(r"[^/\\:\x00-\x1f]+")


@dataclass(frozen=True)
class Family:
    """An exported family.

    Args:
        source (`str`): The folder or the Hub id that it was read from.
        manifest ([`Manifest`]): What the repo that was read says, the locations of all repos resolved.
    """

    source: str
    manifest: Manifest

    @property
    def levels(self) -> dict[str, FamilyRepo]:
        """The repo of each level that has one of its own, the smallest first."""
        return {repo.name: repo for repo in self.manifest.repos if repo.name != FULL}

    @property
    def repos(self) -> dict[str, FamilyRepo]:
        """Every repo by its name, the one that holds all levels (`"full"`) last."""
        return {repo.name: repo for repo in self.manifest.repos}

    @property
    def full(self) -> FamilyRepo:
        """The repo that holds all levels; raises `ValueError` if the family has none."""
        return self.manifest.repo_of(FULL)

    @property
    def folder(self) -> Path:
        """The folder that holds all repos, of a family on disk."""
        return Path(self.source)

    def level(self, name: str) -> FamilyLevel:
        """Cost and quality of a level; raises `ValueError` if it does not exist."""
        return self.manifest.level(name)

    def curve(self, metric: str | None = None, split: str | None = None) -> Curve:
        """The measured quality against cost.

        Args:
            metric (`str`, *optional*), split (`str`, *optional*): Which one; by default the first.

        Raises:
            ValueError: If no such quality was measured.
        """
        curves = self.manifest.curves()
        for curve in curves:
            if metric in (None, curve.metric) and split in (None, curve.split):
                return curve
        known = ", ".join(f"{curve.metric} on {curve.split}" for curve in curves) or "none"
        wanted = " ".join(filter(None, [metric, split and f"on {split}"])) or "quality"
        raise ValueError(f"{self.source} has no measured {wanted}; measured: {known}")

    def select(
        self,
        min_quality: float | None = None,
        max_latency_ms: float | None = None,
        max_memory_mb: float | None = None,
        num_vectors: int | None = None,
        metric: str | None = None,
        split: str | None = None,
    ) -> str:
        """Name of the level to use, see [`~evaluation.selection.select_level`]; works without the weights."""
        points = self.curve(metric, split).points
        return select_point(points, min_quality, max_latency_ms, max_memory_mb, num_vectors)

    def verify(self) -> None:
        """Compare the weights on disk with the manifest: those of all repos, or of the one that was downloaded alone.

        Raises:
            FileNotFoundError: If a repo is not there.
            ValueError: If a repo does not hold the weights that were exported, or comes from another export; or if the
                family is on the Hub.
        """
        if not self.folder.is_dir():
            raise ValueError(f"{self.source} is on the Hub; verify a family, or a downloaded repo, in a folder")
        if (self.folder / MANIFEST_FILE).is_file():
            alone = Manifest.from_folder(self.folder).repo
            if not _is_relative(alone.location):
                check_weights(alone, self.folder)
                return
        for repo in self.repos.values():
            if not repo.folder.is_dir():
                raise FileNotFoundError(f"the repo {repo.name} of {self.source} is not at {repo.location}")
        here = self.manifest.repo.folder
        expected = Manifest.from_folder(here)
        for repo in self.repos.values():
            if Manifest.from_folder(repo.folder) != replace(expected, this=repo.name):
                raise ValueError(
                    f"{repo.folder} and {here} come from different exports, as their {MANIFEST_FILE} say; export the "
                    "family again"
                )
            check_weights(repo, repo.folder)

    def push(self, repo_id: str, **kwargs) -> "PushReport":
        """Bring the family to the Hub, see [`push_family`]."""
        from .push import push_family

        return push_family(self, repo_id, **kwargs)


def load_family(
    path_or_repo: str | os.PathLike,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Family:
    """Read a family from any of its repos, or from the folder that holds them; the weights are not touched.

    Args:
        path_or_repo (`str` or `os.PathLike`): A folder or a Hub id.
        revision (`str`, *optional*): Branch, tag or commit of the repo on the Hub.
        token (`str` or `bool`, *optional*): As elsewhere in huggingface_hub.
        local_files_only (`bool`, *optional*, defaults to `False`): Whether to look in the local cache only.

    Returns:
        [`Family`].

    Raises:
        FileNotFoundError: If the folder or the repo does not exist or is no family.
        ValueError: If the manifest cannot be read, or a newer version wrote it.
        OSError: If the Hub cannot be reached.
    """
    folder = Path(path_or_repo)
    if folder.is_dir():
        return _family_on_disk(folder)
    name = os.fspath(path_or_repo)
    text = _download_manifest(name, revision, token, local_files_only)
    manifest = Manifest.from_text(text, f"{MANIFEST_FILE} of {name}")
    return Family(name, manifest)


def select_level(path_or_repo: str | os.PathLike, **demands) -> str:
    """Name of the level to use of a family in a folder or on the Hub: see [`Family.select`].

    Only `matryoshka.json` is read, never the weights.
    """
    return load_family(path_or_repo).select(**demands)


def _family_on_disk(folder: Path) -> Family:
    repo = folder / FULL if (folder / FULL / MANIFEST_FILE).is_file() else folder
    manifest = Manifest.from_folder(repo)
    # What lies beside a link does not lie beside its target.
    here = repo.resolve() if repo.is_symlink() else repo
    # One repo, downloaded from the Hub, names the others by their ids; a family on disk by where they lie beside it.
    repos = []
    for entry in manifest.repos:
        _check_beside(repo, entry)
        if _is_relative(entry.location):
            # The repo itself may have been renamed.
            place = "." if entry.name == manifest.this else entry.location
            entry = replace(entry, location=os.path.normpath(here / place))
        repos.append(entry)
    root = repo.parent if repo != folder else folder
    return Family(str(root), replace(manifest, repos=repos))


def _check_beside(repo: Path, entry: FamilyRepo) -> None:
    """Raise `ValueError` unless a location is that of a repo beside the one that names it, or an id on the Hub."""
    path = PurePosixPath(entry.location)
    beside = len(path.parts) == 2 and path.name != ".." and _FOLDER.fullmatch(path.name)
    if not (beside if path.parts[:1] == ("..",) else entry.location == "." or _HUB_ID.fullmatch(entry.location)):
        raise ValueError(
            f"the {MANIFEST_FILE} of {repo} says that {entry.name} is at {entry.location!r}, but the repos of a "
            "family lie side by side; export the family again"
        )


def _is_relative(location: str) -> bool:
    return PurePosixPath(location).parts[:1] == ("..",) or location == "."


def _download_manifest(repo_id: str, revision: str | None, token: str | bool | None, local_files_only: bool) -> bytes:
    try:
        path = hf_hub_download(
            repo_id, MANIFEST_FILE, revision=revision, token=token, local_files_only=local_files_only
        )
    except HFValidationError as error:
        raise FileNotFoundError(f"{repo_id} is neither a folder nor a Hub id: {error}") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"there is no folder {repo_id}, and no such repo on the Hub that you may read"
        ) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{repo_id} has no revision {revision!r}") from error
    except LocalEntryNotFoundError as error:
        raise OSError(
            f"the Hub cannot be reached, and {MANIFEST_FILE} of {repo_id} is not in the local cache"
        ) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(f"{repo_id} is no repo of a Matryoshka family: it holds no {MANIFEST_FILE}") from error
    except LocalTokenNotFoundError as error:
        raise PermissionError(
            f"{MANIFEST_FILE} of {repo_id} needs a token; log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except (OfflineModeIsEnabled, HTTPError) as error:
        said = " ".join((getattr(error, "server_message", None) or str(error)).split())
        raise OSError(f"{MANIFEST_FILE} of {repo_id} cannot be read: {said}") from error
    return Path(path).read_bytes()
