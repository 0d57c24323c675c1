"""Makes a repo on the Hub equal to a folder, in one commit or in none."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from .manifest import MANIFEST_FILE, file_hash


T = TypeVar("T")
ATTEMPTS = 6
# Seconds before the second attempt; doubled before each further one.
FIRST_PAUSE = 0.5
# The Hub writes it with the first commit; it says which files are kept as LFS.
HUB_FILES = {".gitattributes"}
# What tools leave in a folder and nobody else needs; the Hub refuses the first two.
LOCAL_FOLDERS = {".git", ".cache", "__pycache__"}


@dataclass(frozen=True)
class RepoChange:
    """What separates a repo on the Hub from a folder.

    Args:
        repo_id (`str`): The repo.
        exists (`bool`): Whether it is there.
        head (`str`, *optional*): Its last commit.
        add (`list[str]`), delete (`list[str]`): Files to write and to remove.
        num_bytes (`int`): Size of the files to write.
        foreign (`bool`): Whether it holds files, but not the mark (a manifest): nothing that was pushed from here.
    """

    repo_id: str
    exists: bool
    head: str | None
    add: list[str]
    delete: list[str]
    num_bytes: int
    foreign: bool

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return self.exists and not self.add and not self.delete


def folder_files(folder: Path) -> dict[str, Path | bytes]:
    """The files of a folder by their paths in it, without what tools leave there."""
    paths = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name.as_posix(): path for name, path in paths.items() if not LOCAL_FOLDERS.intersection(name.parts)}


def compare_repo(
    api: HfApi,
    repo_id: str,
    contents: dict[str, Path | bytes],
    repo_type: str | None = None,
    mark: str = MANIFEST_FILE,
) -> RepoChange:
    """Compare a repo on the Hub with the files that it shall hold, by their hashes; nothing is downloaded.

    Args:
        api (`HfApi`): The client.
        repo_id (`str`): The repo.
        contents (`dict[str, Path | bytes]`): A file or its content, by its path in the repo.
        repo_type (`str`, *optional*): `"dataset"` or `"space"`; a model by default.
        mark (`str`, *optional*, defaults to that of a manifest): File that all repos have which are pushed from here.
    """
    try:
        head = api.repo_info(repo_id, repo_type=repo_type).sha
        tree = api.list_repo_tree(repo_id, recursive=True, revision=head, repo_type=repo_type)
        remote = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    except RepositoryNotFoundError:
        head, remote = None, {}
    add = [name for name, content in sorted(contents.items()) if not _equal(content, remote.get(name))]
    delete = sorted(set(remote) - set(contents) - HUB_FILES)
    num_bytes = sum(_size(contents[name]) for name in add)
    own = {name for name in remote if name not in HUB_FILES and name != "README.md"}
    foreign = bool(own) and mark not in remote
    return RepoChange(repo_id, head is not None, head, add, delete, num_bytes, foreign)


def commit_change(
    api: HfApi,
    change: RepoChange,
    contents: dict[str, Path | bytes],
    message: str,
    repo_type: str | None = None,
) -> str:
    """Bring a repo to its new state in one commit, on top of the commit that was compared; returns the commit id."""
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(name, contents[name] if isinstance(contents[name], bytes) else str(contents[name]))
        for name in change.add
    ]
    operations += [CommitOperationDelete(name) for name in change.delete]
    return api.create_commit(
        change.repo_id, operations, commit_message=message, parent_commit=change.head, repo_type=repo_type
    ).oid


def push_repo(
    api: HfApi,
    repo_id: str,
    contents: dict[str, Path | bytes],
    message: str,
    repo_type: str | None = None,
    private: bool | None = None,
    **created: Any,
) -> str | None:
    """Makes a repo, where there is none, and its files those of `contents`; each request is repeated if it fails.

    Args:
        api (`HfApi`): The client.
        repo_id (`str`): The repo.
        contents (`dict[str, Path | bytes]`): See [`compare_repo`].
        message (`str`): That of the commit.
        repo_type (`str`, *optional*): `"dataset"` or `"space"`; a model by default.
        private (`bool`, *optional*): Whether the repo is private from now on; by default a new one is as the account
            says, and another one stays as it is.
        created (*optional*): Further arguments of `create_repo`.

    Returns:
        `str`: The commit, `None` if the repo was equal already.

    Raises:
        OSError: If the Hub does not hold then what was sent; also as [`with_retries`].
    """
    what, commits = f"the push of {repo_id}", []
    # Each request with attempts of its own: through a bad network a series of them would hardly ever go through.
    with_retries(
        lambda: api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True, **created), what
    )
    info = None if private is None else with_retries(lambda: api.repo_info(repo_id, repo_type=repo_type), what)
    if info is not None and info.private != private:
        with_retries(lambda: api.update_repo_settings(repo_id, repo_type=repo_type, private=private), what)

    def compare() -> RepoChange:
        return with_retries(lambda: compare_repo(api, repo_id, contents, repo_type), what)

    def attempt() -> None:
        # Compared anew: an earlier attempt may have gone through although its answer was lost.
        left = compare()
        if left.empty:
            return
        commits.append(commit_change(api, left, contents, message, repo_type))
        left = compare()
        if not left.empty:
            wrong = ", ".join([*left.add, *left.delete])
            raise OSError(f"{repo_id} does not hold what was pushed ({wrong} differ); push again")

    with_retries(attempt, what)
    return commits[-1] if commits else None


def with_retries(call: Callable[[], T], what: str) -> T:
    """Call the Hub, again after a failure of the network or of the server.

    Args:
        call (`Callable`): May be called again after any failure.
        what (`str`): What it does, for the error message, for example `"the push of me/x"`.

    Raises:
        ValueError: If the Hub would refuse the name.
        PermissionError: If there is no token, or it may not do this.
        OSError: If the network or the Hub goes on failing, or refuses.
    """
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except Exception as error:
            if not _is_transient(error):
                raise _sentence(error, what) from error
            last = error
        if attempt + 1 < ATTEMPTS:
            time.sleep(FIRST_PAUSE * 2**attempt)
    reason = _one_line(last.__cause__ or last).removesuffix(".") or type(last).__name__
    raise ConnectionError(f"{what} did not go through in {ATTEMPTS} attempts: {reason}") from last


def _upload_cause(error: Exception) -> Exception:
    """Why a file did not go up, which huggingface_hub reports as a `RuntimeError` with a cause."""
    cause = error.__cause__
    return cause if isinstance(error, RuntimeError) and isinstance(cause, Exception) else error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _is_transient(error: Exception) -> bool:
    error = _upload_cause(error)
    if isinstance(error, OfflineModeIsEnabled):
        return False
    if isinstance(error, HfHubHTTPError):
        # 412: somebody, maybe we ourselves, committed since; the next attempt compares anew.
        return error.response is not None and (
            error.response.status_code in (408, 412, 429) or error.response.status_code >= 500
        )
    return isinstance(error, HTTPError)


def _sentence(error: Exception, what: str) -> Exception:
    """The error that a user reads; other errors stay as they are."""
    error = _upload_cause(error)
    if isinstance(error, HFValidationError):
        return ValueError(f"{what} is impossible: {_one_line(error)}")
    if isinstance(error, LocalTokenNotFoundError):
        return PermissionError(f"{what} needs a token; log in with `hf auth login` or set HF_TOKEN")
    if isinstance(error, OfflineModeIsEnabled):
        return ConnectionError(f"{what} needs the network, but HF_HUB_OFFLINE is set")
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        status, said = error.response.status_code, " ".join((error.server_message or str(error)).split())
        if status == 401:
            return PermissionError(
                f"{what} needs a valid token; log in with `hf auth login` or set HF_TOKEN (the Hub says: {said})"
            )
        if status == 403:
            return PermissionError(
                f"{what} is not allowed to this token; use one with write access to that namespace "
                f"(the Hub says: {said})"
            )
        return OSError(f"{what} was refused by the Hub with status {status}: {said}")
    if isinstance(error, ValueError):
        # How huggingface_hub reports a file that the Hub refuses, for example because it is too large.
        return OSError(f"{what} was refused: {_one_line(error)}")
    return error


def _equal(content: Path | bytes, remote: RepoFile | None) -> bool:
    if remote is None or remote.size != _size(content):
        return False
    if remote.lfs is not None:
        found = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else file_hash(content)
        return found == remote.lfs.sha256
    data = content if isinstance(content, bytes) else content.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == remote.blob_id


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size
