"""What lies where in a repo."""

from typing import TYPE_CHECKING, Any

from .access import named_repo
from .errors import HubError, entry_not_found
from .messages import Request, Response, paginate
from .objects import git_oid, lfs_pointer
from .repository import Commit, FileEntry, Repository


if TYPE_CHECKING:
    from .local_hub import LocalHub

PAGE = 1000
MAX_PATHS = 1000


def tree(hub: "LocalHub", request: Request) -> Response:
    repo = named_repo(hub, request)
    commit = repo.commit(request.names["revision"])
    path = request.names.get("path", "")
    entries = _entries(commit)
    # Clients find out that there is no such folder from this refusal.
    if path and entries.get(path) is not None or path not in {"", *entries}:
        raise entry_not_found(path, commit.sha)
    prefix = f"{path}/" if path else ""
    recursive = request.flag("recursive")
    inside = [
        name
        for name in entries
        if name.startswith(prefix) and name != path and (recursive or "/" not in name[len(prefix) :])
    ]
    dates = _dates(repo, commit) if request.flag("expand") else None
    return paginate(request, [_describe(commit, name, entries, dates) for name in inside], PAGE, hub.endpoint)


def paths_info(hub: "LocalHub", request: Request) -> Response:
    repo = named_repo(hub, request)
    commit = repo.commit(request.names["revision"])
    wanted = request.json_or_form()
    paths = wanted.get("paths")
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise HubError(400, "The request's 'paths' must be a list of paths")
    if len(paths) > MAX_PATHS:
        raise HubError(413, f"The request names {len(paths)} paths; at most {MAX_PATHS} are answered at once")
    entries = _entries(commit)
    dates = _dates(repo, commit) if wanted.get("expand") in (True, ["true"], ["True"], ["1"]) else None
    names = [path.removesuffix("/") for path in paths]
    return Response([_describe(commit, name, entries, dates) for name in names if name in entries])


def lfs_facts(file: FileEntry) -> dict[str, Any]:
    return {"oid": file.sha256, "size": file.size, "pointerSize": len(lfs_pointer(file.sha256, file.size))}


def _entries(commit: Commit) -> dict[str, FileEntry | None]:
    """Files and folders (`None`) by path, in order."""
    found: dict[str, FileEntry | None] = {}
    for path, file in commit.files.items():
        parts = path.split("/")
        found |= {"/".join(parts[:end]): None for end in range(1, len(parts))}
        found[path] = file
    return dict(sorted(found.items()))


def _describe(
    commit: Commit, path: str, entries: dict[str, FileEntry | None], dates: dict[str, dict[str, str]] | None
) -> dict[str, Any]:
    file = entries[path]
    if file is None:
        inside = {name: inner for name, inner in commit.files.items() if name.startswith(f"{path}/")}
        oid = git_oid("".join(f"{name} {inner.oid}\n" for name, inner in inside.items()).encode(), b"tree")
        value = {"type": "directory", "oid": oid, "size": 0, "path": path}
        changed = {inner.commit for inner in inside.values()}
    else:
        value = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
        if file.lfs:
            value["lfs"] = lfs_facts(file)
        changed = {file.commit}
    if dates is not None:
        value["lastCommit"] = max((dates[sha] for sha in changed), key=lambda last: last["date"])
    return value


def _dates(repo: Repository, commit: Commit) -> dict[str, dict[str, str]]:
    return {past.sha: {"id": past.sha, "title": past.title, "date": past.date} for past in repo.history(commit.sha)}
