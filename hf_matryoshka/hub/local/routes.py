"""Which function answers which request, and who may ask."""

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from . import accounts_api, collections_api, commits_api, files_api, lfs_api, refs_api, repos_api, trees_api
from .access import check_owner, named_repo
from .errors import HubError, repo_not_found
from .messages import Request, Response
from .names import check_oid, check_path, check_ref, check_repo_id


if TYPE_CHECKING:
    from .local_hub import LocalHub

_PARTS = {
    "types": r"models|datasets|spaces",
    "repo": r"[^/]+(?:/[^/]+)?",
    "revision": r"[^/]+",
    "ref": r"[^/]+",
    "path": r".+",
    "oid": r"[^/]+",
    "collection": r"[^/]+/[^/]+",
    "item": r"[^/]+",
}
_REPO = "/api/{types}/{repo}"
# Pages and downloads: models have no prefix.
_FILE = r"(?:/(?P<types>datasets|spaces))?/{repo}"
# (method, path, function, who may ask: "read" anyone who sees the repo, "token" any token, "write" the write token)
_ROUTES = [
    ("GET", "/api/whoami-v2", accounts_api.whoami, "token"),
    ("POST", "/api/validate-yaml", accounts_api.validate_yaml, "read"),
    ("GET", "/api/settings/repositories", repos_api.storage, "token"),
    ("POST", "/api/repos/create", repos_api.create, "write"),
    ("DELETE", "/api/repos/delete", repos_api.delete, "write"),
    ("POST", "/api/repos/move", repos_api.move, "write"),
    ("GET", "/api/{types}", repos_api.listing, "read"),
    ("GET", _REPO + "/refs", refs_api.listing, "read"),
    ("GET", _REPO + "/auth-check", repos_api.auth_check, "read"),
    ("GET", _REPO + "/auth-check/write", repos_api.auth_check, "write"),
    ("GET", _REPO + "/revision/{revision}", repos_api.info, "read"),
    ("GET", _REPO + "/tree/{revision}", trees_api.tree, "read"),
    ("GET", _REPO + "/tree/{revision}/{path}", trees_api.tree, "read"),
    ("POST", _REPO + "/paths-info/{revision}", trees_api.paths_info, "read"),
    ("GET", _REPO + "/commits/{revision}", commits_api.history, "read"),
    ("POST", _REPO + "/preupload/{revision}", commits_api.preupload, "write"),
    ("POST", _REPO + "/commit/{revision}", commits_api.commit, "write"),
    ("POST", _REPO + "/branch/{ref}", refs_api.create_branch, "write"),
    ("DELETE", _REPO + "/branch/{ref}", refs_api.delete_branch, "write"),
    ("POST", _REPO + "/tag/{revision}", refs_api.create_tag, "write"),
    ("DELETE", _REPO + "/tag/{ref}", refs_api.delete_tag, "write"),
    ("PUT", _REPO + "/settings", repos_api.settings, "write"),
    ("POST", _REPO + "/discussions", refs_api.no_discussions, "write"),
    ("GET", _REPO + "/discussions", refs_api.no_discussions, "read"),
    ("GET", _REPO + "/xet-write-token/{revision}", lfs_api.no_xet, "write"),
    ("GET", _REPO, repos_api.info, "read"),
    ("GET", _FILE + "/resolve/{revision}/{path}", files_api.resolve, "read"),
    ("HEAD", _FILE + "/resolve/{revision}/{path}", files_api.resolve, "read"),
    ("POST", _FILE + r"\.git/info/lfs/objects/batch", lfs_api.batch, "write"),
    ("PUT", "/api/lfs/{oid}", lfs_api.upload, "read"),
    ("POST", "/api/lfs/{oid}/verify", lfs_api.verify, "write"),
    ("GET", "/api/collections", collections_api.listing, "read"),
    ("POST", "/api/collections", collections_api.create, "write"),
    ("GET", "/api/collections/{collection}", collections_api.get, "read"),
    ("PATCH", "/api/collections/{collection}", collections_api.update, "write"),
    ("DELETE", "/api/collections/{collection}", collections_api.delete, "write"),
    ("POST", "/api/collections/{collection}/items", collections_api.add_item, "write"),
    ("PATCH", "/api/collections/{collection}/items/{item}", collections_api.update_item, "write"),
    ("DELETE", "/api/collections/{collection}/items/{item}", collections_api.delete_item, "write"),
]


def _compile(path: str) -> re.Pattern:
    return re.compile(re.sub(r"\{(\w+)\}", lambda part: f"(?P<{part[1]}>{_PARTS[part[1]]})", path))


_COMPILED = [(method, _compile(path), function, access) for method, path, function, access in _ROUTES]
_CHECKS = {"repo": check_repo_id, "revision": check_ref, "ref": check_ref, "path": check_path, "oid": check_oid}


def answer(hub: "LocalHub", request: Request) -> Response:
    """The answer to a request, whose names are checked and whose token is known to suffice.

    Raises:
        HubError: For every refusal.
    """
    for method, pattern, function, access in _COMPILED:
        match = pattern.fullmatch(request.path) if method == request.method else None
        if match:
            request.account = hub.accounts.authenticate(request.headers.get("Authorization"))
            _check_access(request, access, in_repo="repo" in match.groupdict())
            for name, text in match.groupdict().items():
                if text is not None:
                    text = unquote(text)
                    request.names[name] = _CHECKS[name](text) if name in _CHECKS else text
            if access == "write" and "repo" in request.names:
                check_owner(request.account, named_repo(hub, request).id.partition("/")[0])
            return function(hub, request)
    raise HubError(404, f"The local hub has no {request.method} {request.path}")


def _check_access(request: Request, access: str, in_repo: bool) -> None:
    if access == "read":
        return
    if request.account is None:
        # Where a repo is named, clients read 401 as "no such repo, or not for you".
        raise repo_not_found(anonymous=True) if in_repo else HubError(401, "Invalid username or password.")
    if access == "write" and request.account.role != "write":
        raise HubError(403, "This token is read-only: you must use a token with the write role")
