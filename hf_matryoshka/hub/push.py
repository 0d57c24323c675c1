"""A family on its way to the Hub."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError, RemoteEntryNotFoundError
from huggingface_hub.utils import validate_repo_id
from tqdm.auto import tqdm

from .cards import fill_repo_ids
from .family import Family
from .inside import check_no_links_out
from .manifest import FULL, MANIFEST_FILE, FamilyRepo, Manifest
from .repo_sync import RepoChange, compare_repo, folder_files, push_repo, with_retries


T = TypeVar("T")


@dataclass(frozen=True)
class PushedRepo:
    """What a push did, or would do, to one repo.

    Args:
        name (`str`): Its name in the family.
        change ([`RepoChange`]): What was different.
        commit (`str`, *optional*): The commit, unless nothing was different or it was a dry run.
    """

    name: str
    change: RepoChange
    commit: str | None = None

    @property
    def repo_id(self) -> str:
        """Its id on the Hub."""
        return self.change.repo_id


@dataclass(frozen=True)
class PushReport:
    """What a push did.

    Args:
        repos (`list[PushedRepo]`): The repos, the smallest first and the full one last.
        collection (`str`, *optional*): Slug of the Collection.
    """

    repos: list[PushedRepo]
    collection: str | None = None

    @property
    def repo_ids(self) -> list[str]:
        """Ids of all repos."""
        return [repo.repo_id for repo in self.repos]

    @property
    def commits(self) -> list[str]:
        """The commits that were made; none if the Hub had everything already."""
        return [repo.commit for repo in self.repos if repo.commit]


def push_family(
    family: Family,
    repo_id: str,
    *,
    private: bool | None = None,
    collection: bool = True,
    dry_run: bool = False,
    overwrite: bool = False,
    token: str | None = None,
) -> PushReport:
    """Bring every repo of a family to the Hub, each in one commit with its card, then list them in a Collection.

    A repo on the Hub becomes equal to its folder; one that is equal already gets no commit. So a second run does
    nothing, and a run after an interruption goes on where that one stopped. The repo of a level that the family no
    longer has leaves the Collection, but is never deleted.

    Args:
        family ([`Family`]): A family on disk.
        repo_id (`str`): `"user/name"`, or `"name"` for the account of the token: the id of the full repo. The level
            `d64` becomes `user/name-d64`.
        private (`bool`, *optional*): Whether the repos and the Collection are private; by default new repos follow
            the setting of the account, a new Collection is public, and existing ones stay as they are.
        collection (`bool`, *optional*, defaults to `True`): Whether to list the repos in a Collection.
        dry_run (`bool`, *optional*, defaults to `False`): Whether to say what would be done, and do nothing.
        overwrite (`bool`, *optional*, defaults to `False`): Whether a repo may be replaced that holds files which
            were not pushed from a family, or another repo of one (a level where the full one would go).
        token (`str`, *optional*): By default the one that is logged in.

    Returns:
        [`PushReport`]: What was done.

    Raises:
        ValueError: If the Hub would refuse an id, or the weights are not those that were exported.
        PermissionError: If there is no token, or it may not write there.
        FileExistsError: If a repo on the Hub holds something else.
        OSError: If the network or the Hub goes on failing; the same call goes on where it stopped.
    """
    if not family.folder.is_dir():
        raise ValueError(f"{family.source} is on the Hub; push a family that lies in a folder")
    api = _client(repo_id, token)
    ids = _repo_ids(list(family.repos), _with_namespace(api, repo_id, dry_run))
    # Those of a repo that was downloaded are ids on the Hub, which must not be taken for folders.
    beside = os.path.dirname(os.path.abspath(family.manifest.repo.folder))
    for repo in family.repos.values():
        if not repo.folder.is_dir() or os.path.dirname(os.path.abspath(repo.folder)) != beside:
            raise FileNotFoundError(
                f"the repo {repo.name} of {family.source} is not at {repo.location}; a push needs the folders of all "
                "repos, as export_family writes them"
            )
        check_no_links_out(repo.folder)
    family.verify()
    contents = {name: _contents(family, name, ids) for name in ids}
    changes = {name: _compare(api, ids[name], contents[name]) for name in ids}
    for name, change in changes.items():
        if change.foreign and not overwrite:
            raise FileExistsError(
                f"{change.repo_id} on the Hub holds files that are no Matryoshka export; choose another name or pass "
                "overwrite=True"
            )
        there = None if overwrite else _name_on_hub(api, change)
        if there not in (None, name):
            raise FileExistsError(
                f"{change.repo_id} on the Hub is the repo {there} of a family, not {name}; choose another name or "
                "pass overwrite=True"
            )
    if dry_run:
        return PushReport([PushedRepo(name, change) for name, change in changes.items()])
    pushed = []
    for name in tqdm(ids, desc="Pushing", unit="repo"):
        try:
            commit = push_repo(api, ids[name], contents[name], f"Upload {name}", private=private)
            pushed.append(PushedRepo(name, changes[name], commit))
        except ConnectionError as error:
            raise ConnectionError(
                f"{error}; {len(pushed)} of {len(ids)} repos are up to date, and the same push goes on from there"
            ) from error
    slug = None
    if collection:
        slug = _collect(api, family, ids, private, f"the Collection of {repo_id}")
    return PushReport(pushed, slug)


def check_push(repo_id: str, names: Iterable[str] = (), token: str | None = None) -> str:
    """The id with its namespace, if it is one that the Hub takes and the token may write; raises as [`push_family`].

    A long job asks this before it starts.

    Args:
        repo_id (`str`): See [`push_family`].
        names (`Iterable[str]`, *optional*): Names of the repos that the family will have.
        token (`str`, *optional*): By default the one that is logged in.
    """
    repo_id = _with_namespace(_client(repo_id, token), repo_id, dry_run=False)
    _repo_ids(list(names), repo_id)
    return repo_id


def _client(repo_id: str, token: str | None) -> HfApi:
    # As a header it would be refused by the HTTP client, again and again, with the token in the message.
    if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token != ""):
        raise PermissionError(
            f"the push of {repo_id} needs a valid token; the one that was given is empty, or holds a line break or "
            "something else that no token has"
        )
    return HfApi(token=token)


def _with_namespace(api: HfApi, repo_id: str, dry_run: bool) -> str:
    _check_repo_id(repo_id)
    if dry_run and "/" in repo_id:
        # A dry run of public repos needs no token.
        return repo_id
    account = with_retries(api.whoami, f"the push of {repo_id}")
    role = account.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read" and not dry_run:
        raise PermissionError(
            f"the push of {repo_id} is not allowed to a read-only token; use one with write access "
            "(https://huggingface.co/settings/tokens)"
        )
    if "/" not in repo_id:
        return f"{account['name']}/{repo_id}"
    own = [account["name"], *(organization["name"] for organization in account.get("orgs", []))]
    if repo_id.partition("/")[0] not in own:
        raise PermissionError(f"the push of {repo_id} is not allowed to this token; it may write to {', '.join(own)}")
    return repo_id


def _repo_ids(names: list[str], repo_id: str) -> dict[str, str]:
    # A single level that was exported by itself takes the name as it is.
    ids = {name: repo_id if name == FULL or len(names) == 1 else f"{repo_id}-{name}" for name in names}
    for one in ids.values():
        _check_repo_id(one)
    return ids


def _check_repo_id(repo_id: str) -> None:
    with_retries(lambda: validate_repo_id(repo_id), f"the push of {repo_id!r}")


def _contents(family: Family, name: str, ids: dict[str, str]) -> dict[str, Path | bytes]:
    """All files of a repo, card and manifest with the ids of the family filled in."""
    folder = family.repos[name].folder
    contents = folder_files(folder)
    manifest = Manifest.from_folder(folder)
    repos = [replace(repo, location=ids[repo.name]) for repo in manifest.repos]
    contents[MANIFEST_FILE] = replace(manifest, repos=repos).to_text().encode()
    contents["README.md"] = fill_repo_ids((folder / "README.md").read_text(encoding="utf-8"), ids, name).encode()
    return contents


def _compare(api: HfApi, repo_id: str, contents: dict[str, Path | bytes]) -> RepoChange:
    return with_retries(lambda: compare_repo(api, repo_id, contents), f"the push of {repo_id}")


def _name_on_hub(api: HfApi, change: RepoChange) -> str | None:
    """Which repo of a family a repo on the Hub is, as far as its manifest can be read."""
    if not change.exists or change.empty:
        return None

    def name() -> str | None:
        try:
            path = api.hf_hub_download(change.repo_id, MANIFEST_FILE, revision=change.head)
            return Manifest.from_text(Path(path).read_bytes(), MANIFEST_FILE).this
        except LocalEntryNotFoundError as error:
            # The Hub did not answer, which says nothing about what it holds.
            raise HTTPError(str(error.__cause__ or error)) from error
        except (RemoteEntryNotFoundError, ValueError):
            return None  # a repo without files, or a damaged manifest, which the push mends

    return with_retries(name, f"the push of {change.repo_id}")


def _collect(api: HfApi, family: Family, ids: dict[str, str], private: bool | None, what: str) -> str:
    def call(method: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return with_retries(lambda: method(*args, **kwargs), what)

    namespace, _, title = ids.get(FULL, next(iter(ids.values()))).partition("/")
    slug = call(api.create_collection, title, namespace=namespace, private=bool(private), exists_ok=True).slug
    collection = call(api.get_collection, slug)
    if private is not None and collection.private != private:
        call(api.update_collection_metadata, slug, private=private)
    known = {item.item_id: item for item in collection.items}
    for repo_id, item in known.items():
        # A level that an earlier family had; what others put into the Collection has other notes.
        if repo_id.startswith(f"{namespace}/{title}-") and repo_id not in ids.values() and _is_our_note(item.note):
            call(api.delete_collection_item, slug, item.item_object_id, missing_ok=True)
    for name, repo_id in sorted(ids.items(), key=lambda pair: pair[0] != FULL):
        note = _note(family.repos[name])
        if repo_id not in known:
            call(api.add_collection_item, slug, repo_id, "model", note=note, exists_ok=True)
        elif known[repo_id].note != note:
            call(api.update_collection_item, slug, known[repo_id].item_object_id, note=note)
    return slug


def _note(repo: FamilyRepo) -> str:
    form = "stock" if repo.stock else "remote code"
    return f"{', '.join(repo.levels)} ({form})"


def _is_our_note(note: str | None) -> bool:
    return note is not None and note.endswith(("(stock)", "(remote code)"))
