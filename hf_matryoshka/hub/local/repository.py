"""One repo: its settings and refs in one document, and a document for each commit."""

import hashlib
import json
import secrets
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from .errors import HubError, entry_not_found, revision_not_found
from .names import COMMIT
from .objects import read_json, write_json


MAIN = "main"


@dataclass(frozen=True)
class FileEntry:
    """A file of a commit.

    Args:
        sha256 (`str`): Of the content.
        size (`int`): Number of bytes.
        oid (`str`): What git would call the blob: of the content, or of the pointer if the file is stored with LFS.
        lfs (`bool`): Whether the file is stored with LFS.
        commit (`str`): The commit that last changed it.
    """

    sha256: str
    size: int
    oid: str
    lfs: bool
    commit: str = ""

    @property
    def etag(self) -> str:
        """What clients compare with their own file: the sha256 of an LFS file, the git blob id of any other."""
        return self.sha256 if self.lfs else self.oid


@dataclass(frozen=True)
class Commit:
    """A state of all files, and how it came about."""

    sha: str
    parent: str | None
    title: str
    message: str
    author: str
    date: str
    files: dict[str, FileEntry]


class Change(NamedTuple):
    """One line of a commit: `kind` is "put", "delete_file" or "delete_folder"."""

    kind: str
    path: str
    entry: FileEntry | None = None


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Repository:
    """A repo on disk.

    Args:
        folder (`Path`): Its folder.
        repo_id (`str`): namespace/name.
        repo_type (`str`): "model", "dataset" or "space".
        lock (`threading.RLock`): Held while a ref or a setting changes.
    """

    def __init__(self, folder: Path, repo_id: str, repo_type: str, lock: threading.RLock):
        self.folder = folder
        self.id = repo_id
        self.type = repo_type
        self._lock = lock

    @property
    def state(self) -> dict[str, Any]:
        """Settings and refs: keys private, gated, sdk, created_at, branches, tags."""
        return read_json(self.folder / "repo.json")

    def update(self, **settings: Any) -> None:
        with self._lock:
            write_json(self.folder / "repo.json", {**self.state, **settings})

    @property
    def private(self) -> bool:
        return self.state["private"]

    def resolve(self, revision: str) -> str:
        """The commit that a branch, a tag or the id of a commit stands for."""
        state = self.state
        for prefix, kind in (("refs/heads/", "branches"), ("refs/tags/", "tags")):
            for name in (revision, revision.removeprefix(prefix)):
                if name in state[kind]:
                    return state[kind][name]
        if COMMIT.fullmatch(revision) and self._commit_path(revision).is_file():
            return revision
        raise revision_not_found(revision)

    def commit(self, revision: str) -> Commit:
        document = read_json(self._commit_path(self.resolve(revision)))
        files = {path: FileEntry(**entry) for path, entry in document.pop("files").items()}
        return Commit(**document, files=files)

    def file(self, revision: str, path: str) -> tuple[Commit, FileEntry]:
        commit = self.commit(revision)
        if path not in commit.files:
            raise entry_not_found(path, commit.sha)
        return commit, commit.files[path]

    def history(self, revision: str) -> Iterator[Commit]:
        """Commits, newest first."""
        sha = self.resolve(revision)
        while sha is not None:
            commit = self.commit(sha)
            yield commit
            sha = commit.parent

    def add_commit(
        self, branch: str, changes: list[Change], title: str, message: str, author: str, parent: str | None = None
    ) -> Commit:
        """Apply the changes in their order on top of a branch.

        Args:
            branch (`str`): Name of the branch.
            changes (`list`): The changes; none at all gives an empty commit.
            title (`str`): First line of the commit's message.
            message (`str`): The rest of it.
            author (`str`): Name of the user.
            parent (`str`, *optional*): The commit that the branch must still be at.

        Raises:
            HubError: With status 404 if there is no such branch or file, 412 if the branch is elsewhere, 400 if a
                file would lie inside another file.
        """
        with self._lock:
            state = self.state
            branch = branch.removeprefix("refs/heads/")
            if branch not in state["branches"]:
                raise revision_not_found(branch)
            head = self.commit(state["branches"][branch])
            if parent is not None and parent != head.sha:
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
            commit = build_commit(head, changes, title, message, author)
            self.write_commit(commit)
            self.update(branches={**state["branches"], branch: commit.sha})
            return commit

    def write_commit(self, commit: Commit) -> None:
        write_json(self._commit_path(commit.sha), asdict(commit))

    def create_branch(self, name: str, start: str) -> None:
        self._add_ref("branches", name, start)

    def create_tag(self, name: str, revision: str) -> None:
        self._add_ref("tags", name, revision)

    def _add_ref(self, kind: str, name: str, revision: str) -> None:
        with self._lock:
            refs, target = self.state[kind], self.resolve(revision)
            if name in refs:
                raise HubError(409, f"Reference already exists: {name}")
            self.update(**{kind: {**refs, name: target}})

    def delete_ref(self, kind: str, name: str) -> None:
        """Remove a branch (`kind` "branches") or a tag ("tags")."""
        with self._lock:
            refs = self.state[kind]
            if name not in refs:
                raise revision_not_found(name)
            if (kind, name) == ("branches", MAIN):
                raise HubError(403, f"Cannot delete the default branch {MAIN}")
            self.update(**{kind: {ref: sha for ref, sha in refs.items() if ref != name}})

    def _commit_path(self, sha: str) -> Path:
        return self.folder / "commits" / f"{sha}.json"


def build_commit(head: Commit | None, changes: list[Change], title: str, message: str, author: str) -> Commit:
    """The commit that follows `head` (`None`: the first one of a repo)."""
    before = head.files if head else {}
    files = dict(before)
    for change in changes:
        _apply(files, change, head.sha if head else "")
    parents = {"/".join(parts[:end]) for parts in (path.split("/") for path in files) for end in range(1, len(parts))}
    for path in parents & files.keys():
        raise HubError(400, f"{path} cannot be a file and a folder at once")
    sha = head.sha if head else None
    named = [secrets.token_hex(8), sha, title, message, sorted((path, files[path].oid) for path in files)]
    new = hashlib.sha1(json.dumps(named).encode()).hexdigest()
    files = {path: entry if before.get(path) == entry else replace(entry, commit=new) for path, entry in files.items()}
    return Commit(new, sha, title, message, author, now(), dict(sorted(files.items())))


def _apply(files: dict[str, FileEntry], change: Change, head: str) -> None:
    if change.kind == "put":
        old = files.get(change.path)
        same = old is not None and (old.oid, old.lfs) == (change.entry.oid, change.entry.lfs)
        files[change.path] = old if same else change.entry
        return
    inside = [path for path in files if path.startswith(f"{change.path}/")]
    gone = inside if change.kind == "delete_folder" else [change.path] if change.path in files else []
    if not gone:
        kind = "folder" if change.kind == "delete_folder" else "file"
        raise HubError(
            404,
            f"A {kind} with this name doesn't exist: {change.path}",
            "EntryNotFound",
            {"X-Repo-Commit": head},
        )
    for path in gone:
        del files[path]
