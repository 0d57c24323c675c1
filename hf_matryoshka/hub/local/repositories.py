"""All repos of a hub, in folders `<type>s/<namespace>/<name>`."""

import os
import secrets
import shutil
import threading
from pathlib import Path

from .errors import HubError
from .git_attributes import GIT_ATTRIBUTES
from .names import REPO_TYPES
from .objects import ObjectStore, write_json
from .repository import MAIN, Change, FileEntry, Repository, build_commit, now


class Repositories:
    """The repos below a folder.

    Args:
        folder (`Path`): Where they lie.
        objects (`ObjectStore`): The contents of their files.
    """

    def __init__(self, folder: Path, objects: ObjectStore):
        self.folder = folder
        self.objects = objects
        self._lock = threading.RLock()

    def find(self, repo_type: str, repo_id: str) -> Repository | None:
        """The repo, `None` if there is none. Both names must have been checked."""
        repo = self._at(repo_type, repo_id)
        return repo if (repo.folder / "repo.json").is_file() else None

    def listing(self, repo_type: str | None = None) -> list[Repository]:
        """All repos, of one type or of all, by id."""
        found = []
        for kind in REPO_TYPES if repo_type is None else (repo_type,):
            for document in (self.folder / f"{kind}s").glob("*/*/repo.json"):
                found.append(self._at(kind, "/".join(document.parts[-3:-1])))
        return sorted(found, key=lambda repo: (repo.type, repo.id))

    def create(self, repo_type: str, repo_id: str, private: bool, sdk: str | None, author: str) -> Repository:
        """A repo whose first commit holds `.gitattributes`, as on the Hub.

        Raises:
            HubError: With status 409 if it exists.
        """
        with self._lock:
            repo = self._at(repo_type, repo_id)
            if self.find(repo_type, repo_id):
                raise HubError(409, f"You already created this {repo_type} repo: {repo_id}")
            stored = self.objects.add_bytes(GIT_ATTRIBUTES)
            entry = FileEntry(stored.sha256, stored.size, stored.git_oid, lfs=False)
            commit = build_commit(None, [Change("put", ".gitattributes", entry)], "initial commit", "", author)
            repo.write_commit(commit)
            state = {"private": private, "gated": False, "sdk": sdk, "created_at": now()}
            # The repo exists from here on.
            write_json(repo.folder / "repo.json", {**state, "branches": {MAIN: commit.sha}, "tags": {}})
            return repo

    def delete(self, repo: Repository) -> None:
        with self._lock:
            gone = self.folder / f".deleted-{secrets.token_hex(8)}"
            os.replace(repo.folder, gone)
        shutil.rmtree(gone)

    def move(self, repo: Repository, repo_id: str) -> Repository:
        """Rename a repo.

        Raises:
            HubError: With status 409 if the new name is taken.
        """
        with self._lock:
            new = self._at(repo.type, repo_id)
            if self.find(repo.type, repo_id):
                raise HubError(409, f"Cannot move {repo.id}: {repo_id} already exists")
            new.folder.parent.mkdir(parents=True, exist_ok=True)
            os.replace(repo.folder, new.folder)
            return new

    def _at(self, repo_type: str, repo_id: str) -> Repository:
        return Repository(self.folder / f"{repo_type}s" / repo_id, repo_id, repo_type, self._lock)
