"""Commits: how each file is to be uploaded, the commit itself, and the history."""

import base64
import binascii
from typing import TYPE_CHECKING, Any

from .access import named_repo
from .cards import read_metadata
from .errors import HubError, revision_not_found
from .git_attributes import MAX_REGULAR_SIZE, is_ignored, is_lfs
from .messages import Request, Response, expect, paginate, parse_object
from .names import check_oid, check_path
from .objects import git_oid, lfs_pointer
from .refs_api import NO_PULL_REQUESTS
from .repos_api import repo_url
from .repository import Change, Commit, FileEntry


if TYPE_CHECKING:
    from .local_hub import LocalHub

PAGE = 50
# A file of the largest size as base64, and room for the rest.
MAX_LINE = 2 * MAX_REGULAR_SIZE


def preupload(hub: "LocalHub", request: Request) -> Response:
    repo = named_repo(hub, request)
    _refuse_pull_request(request)
    if request.names["revision"].removeprefix("refs/heads/") not in repo.state["branches"]:
        raise revision_not_found(request.names["revision"])
    commit = repo.commit(request.names["revision"])
    wanted = request.json()
    attributes = _text(hub, commit, ".gitattributes")
    ignore = expect(wanted, "gitIgnore", str, None)
    ignore = _text(hub, commit, ".gitignore") if ignore is None else ignore
    answers = []
    for file in expect(wanted, "files", list):
        if not isinstance(file, dict):
            raise HubError(400, "The request's 'files' must be a list of objects")
        path, size = check_path(file.get("path")), expect(file, "size", int)
        old = commit.files.get(path)
        answers.append(
            {
                "path": path,
                "uploadMode": "lfs" if is_lfs(path, size, attributes) else "regular",
                "shouldIgnore": is_ignored(path, ignore),
                "oid": old.etag if old else None,
            }
        )
    return Response({"files": answers, "commitOid": commit.sha})


def commit(hub: "LocalHub", request: Request) -> Response:
    repo = named_repo(hub, request)
    _refuse_pull_request(request)
    lines = (parse_object(line) for line in request.body.lines(hub.max_upload_bytes, MAX_LINE) if line.strip())
    header = next(lines, {})
    if header.get("key") != "header":
        raise HubError(400, "A commit starts with a line of key 'header'")
    header = expect(header, "value", dict)
    title = expect(header, "summary", str)
    if not title.strip():
        raise HubError(400, "The commit's 'summary' is empty")
    parent = expect(header, "parentCommit", str, None)
    message = expect(header, "description", str, "")
    changes = [_change(hub, line) for line in lines]  # one at a time: a line holds a whole file
    new = repo.add_commit(request.names["revision"], changes, title, message, request.account.user, parent)
    url = f"{repo_url(hub, repo.type, repo.id)}/commit/{new.sha}"
    return Response({"success": True, "commitOid": new.sha, "commitUrl": url, "pullRequestUrl": None})


def history(hub: "LocalHub", request: Request) -> Response:
    repo = named_repo(hub, request)
    formatted = "formatted" in request.query.get("expand[]", []) + request.query.get("expand", [])
    found = []
    for past in repo.history(request.names["revision"]):
        value = {
            "id": past.sha,
            "title": past.title,
            "message": past.message,
            "authors": [{"user": past.author, "avatar": ""}],
            "date": past.date,
        }
        found.append(value | ({"formatted": {"title": past.title, "message": past.message}} if formatted else {}))
    return paginate(request, found, PAGE, hub.endpoint)


def _change(hub: "LocalHub", operation: dict[str, Any]) -> Change:
    kind, value = operation.get("key"), expect(operation, "value", dict)
    if kind == "deletedFile":
        return Change("delete_file", check_path(value.get("path")))
    if kind == "deletedFolder":
        return Change("delete_folder", check_path(value.get("path"), folder=True))
    path = check_path(value.get("path"))
    if kind == "file":
        content = _decode(value)
        if path == "README.md":
            try:
                read_metadata(content.decode(errors="replace"))
            except ValueError as error:
                raise HubError(400, f"README.md: {error}") from None
        stored = hub.objects.add_bytes(content)
        return Change("put", path, FileEntry(stored.sha256, stored.size, stored.git_oid, lfs=False))
    if kind == "lfsFile":
        oid = check_oid(value.get("oid"))
        size = hub.objects.size(oid)
        if size is None or value.get("size", size) != size:
            raise HubError(400, f"The LFS object {oid} of {path} was not uploaded, or has another size")
        return Change("put", path, FileEntry(oid, size, git_oid(lfs_pointer(oid, size)), lfs=True))
    raise HubError(400, f"Unknown key {kind!r} in a commit: use file, lfsFile, deletedFile or deletedFolder")


def _decode(value: dict[str, Any]) -> bytes:
    content, encoding = expect(value, "content", str), value.get("encoding", "utf-8")
    if encoding == "base64":
        try:
            return base64.b64decode(content, validate=True)
        except binascii.Error:
            raise HubError(400, f"The content of {value['path']} is no base64") from None
    if encoding != "utf-8":
        raise HubError(400, f"Unknown encoding {encoding!r} of {value['path']}: use base64 or utf-8")
    return content.encode()


def _refuse_pull_request(request: Request) -> None:
    if request.flag("create_pr"):
        raise HubError(400, NO_PULL_REQUESTS)


def _text(hub: "LocalHub", commit: Commit, path: str) -> str:
    return hub.objects.read(commit.files[path].sha256).decode(errors="replace") if path in commit.files else ""
