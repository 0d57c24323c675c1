"""Which names the hub takes: repo ids, paths in a repo, branches and tags, object ids."""

import re

from .errors import HubError


REPO_TYPES = ("model", "dataset", "space")
MAX_NAME = 96
OID = re.compile(r"[0-9a-f]{64}")
COMMIT = re.compile(r"[0-9a-f]{40}")
_REPO_ID = re.compile(r"(?:\b[A-Za-z0-9_.-]+\b/)?\b[A-Za-z0-9_.-]+\b")
# Control characters, and halves of characters, which JSON can hold and UTF-8 cannot.
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def check_repo_id(repo_id: object) -> str:
    """`repo_id` if the Hub would take it.

    Raises:
        HubError: With status 400 otherwise.
    """
    if (
        not isinstance(repo_id, str)
        or not _REPO_ID.fullmatch(repo_id)
        or max(map(len, repo_id.split("/"))) > MAX_NAME
        or "--" in repo_id
        or ".." in repo_id
        or repo_id.endswith(".git")
    ):
        raise HubError(
            400,
            f"Invalid repo id {repo_id!r}: use namespace/name, each of at most {MAX_NAME} letters, digits, '-', '_' "
            "and '.', without '--' or '..', not starting or ending with '-' or '.', nor ending with '.git'",
        )
    return repo_id


def check_namespace(name: str) -> str:
    """`name` if a user or an organisation can be called so.

    Raises:
        ValueError: If not.
    """
    try:
        if "/" not in check_repo_id(name):
            return name
    except HubError:
        pass
    raise ValueError(f"{name!r} is no name of a user or organisation; use letters, digits, '-', '_' and '.'")


def check_repo_type(repo_type: object) -> str:
    if repo_type not in REPO_TYPES:
        raise HubError(400, f"Invalid repo type {repo_type!r}: the local hub has {', '.join(REPO_TYPES)}")
    return repo_type


def check_path(path: object, folder: bool = False) -> str:
    """`path` if it names a file (or a folder, whose trailing slash is dropped) inside a repo."""
    if isinstance(path, str) and folder:
        path = path.removesuffix("/")
    if (
        not isinstance(path, str)
        or not 1 <= len(path) <= 1024
        or "\\" in path
        or _CONTROL.search(path)
        or any(part in ("", ".", "..", ".git") for part in path.split("/"))
    ):
        raise HubError(400, f"Invalid path in repo {path!r}: use a relative path without '..', '.git' or empty parts")
    return path


def check_ref(name: object) -> str:
    """`name` if git takes it as a branch or tag."""
    if (
        not isinstance(name, str)
        or not 1 <= len(name) <= 255
        or _CONTROL.search(name)
        or any(character in name for character in " ~^:?*[\\")
        or any(piece in name for piece in ("..", "//", "@{"))
        or name == "@"
        or name.endswith(("/", "."))
        or any(part.startswith((".", "-")) or part.endswith(".lock") or not part for part in name.split("/"))
    ):
        raise HubError(400, f"Invalid git ref {name!r}: use a name such as v1.0 or my-branch")
    return name


def check_new_ref(name: object) -> str:
    name = check_ref(name)
    if name.startswith("refs/") or name == "HEAD" or COMMIT.fullmatch(name):
        raise HubError(400, f"Invalid git ref {name!r}: it would be read as something else than a branch or tag")
    return name


def check_oid(oid: object) -> str:
    if not isinstance(oid, str) or not OID.fullmatch(oid):
        raise HubError(400, f"Invalid LFS object id {oid!r}: it must be a sha256, 64 lowercase hex digits")
    return oid
