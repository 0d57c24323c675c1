"""Which repo a Space searches with: in a folder or on the Hub, checked before any work."""

import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, ModelCard, snapshot_download

from .family import load_family
from .inside import check_no_links_out
from .manifest import FULL, MANIFEST_FILE, Manifest, check_weights
from .repo_sync import with_retries


@dataclass(frozen=True)
class SpaceSource:
    """A repo that embeds texts.

    Args:
        folder (`Path`): Where it lies here; of a repo on the Hub, in the cache.
        manifest ([`Manifest`]): Its manifest.
        hub_id (`str`, *optional*): Its id, if it is on the Hub.
        revision (`str`, *optional*): Its commit there.
        remote_code (`bool`): Whether it needs its code to load.
        license (`str`, *optional*): License id of its card.
    """

    folder: Path
    manifest: Manifest
    hub_id: str | None
    revision: str | None
    remote_code: bool
    license: str | None

    @property
    def by_width(self) -> bool:
        """Whether its levels are widths of one embedding, the smaller ones beginnings of the larger ones."""
        return all(level.budget is None for level in self.manifest.levels)

    @property
    def chooses_dim(self) -> bool:
        """Whether `encode` takes `matryoshka_dim`; other embeddings are cut after."""
        return not self.manifest.repo.stock and (self.by_width or bool(self.manifest.matryoshka_dims))

    @property
    def title(self) -> str:
        """What it is called, for people."""
        named = self.hub_id or self.manifest.base_model
        if named is not None:
            return named.rpartition("/")[2]
        return self.folder.parent.name if self.folder.name == FULL else self.folder.name


def find_source(model: str | os.PathLike, trust_remote_code: bool = False) -> SpaceSource:
    """The repo of a model, which must embed texts.

    Args:
        model (`str` or `os.PathLike`): A family, whose `full` repo is taken, or any repo of one; a folder or a Hub id.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Whether its code may run.

    Raises:
        FileNotFoundError: If there is no such folder or repo, or it is no export.
        ValueError: If it gives no embeddings of texts, holds other weights than were exported, or brings code that was
            not trusted.
        OSError: If the Hub cannot be reached.
    """
    name = os.fspath(model)
    if Path(name).is_dir():
        folder = Path(name)
        folder = folder / FULL if (folder / FULL / MANIFEST_FILE).is_file() else folder
        manifest, hub_id, revision = Manifest.from_folder(folder), None, None
    else:
        manifest, hub_id = load_family(name).manifest, name
    remote_code = _check(name, manifest, trust_remote_code)
    if hub_id is not None:
        folder, revision = _download(hub_id)
    if not (folder / "modules.json").is_file():
        raise ValueError(f"{name} {_NO_EMBEDDINGS}")
    if hub_id is None:
        check_no_links_out(folder)
        check_weights(manifest.repo, folder)
    # A stock repo may hold a base model that brings code of its own.
    remote_code = remote_code or any(folder.glob("*.py"))
    if remote_code and not trust_remote_code:
        raise ValueError(f"{name} brings code of its own; read it, then allow it with --trust-remote-code")
    return SpaceSource(folder, manifest, hub_id, revision, remote_code, _license(folder))


_NO_EMBEDDINGS = (
    "gives no embeddings of texts, which a search needs; export an adaptor with its base model, a Delta encoder or a "
    "Mamba encoder"
)


def _check(name: str, manifest: Manifest, trust_remote_code: bool) -> bool:
    """Whether a repo needs its code, as its manifest says; raises as [`find_source`], before any download."""
    if manifest.inputs != "text" or any(level.dim is None for level in manifest.levels):
        raise ValueError(f"{name} is a {manifest.model_type} of {manifest.inputs} and {_NO_EMBEDDINGS}")
    remote_code = not manifest.repo.stock
    if remote_code and not trust_remote_code:
        raise ValueError(f"{name} brings code of its own; read it, then allow it with --trust-remote-code")
    return remote_code


def _download(hub_id: str) -> tuple[Path, str]:
    """Folder in the cache and commit of a repo, without its graphs."""
    what = f"the download of {hub_id}"
    revision = with_retries(lambda: HfApi().model_info(hub_id).sha, what)
    ignored = ["onnx/*", "*.onnx*"]
    folder = with_retries(lambda: snapshot_download(hub_id, revision=revision, ignore_patterns=ignored), what)
    return Path(folder), revision


def _license(folder: Path) -> str | None:
    path = folder / "README.md"
    if not path.is_file():
        return None
    return ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.license
