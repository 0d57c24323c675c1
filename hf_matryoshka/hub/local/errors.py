"""Answers that say no, in the Hub's own shapes."""

from typing import Any


class HubError(Exception):
    """A request that the hub refuses.

    Args:
        status (`int`): HTTP status.
        message (`str`): One sentence; sent as the body's `error` and as `X-Error-Message`.
        code (`str`, *optional*): `X-Error-Code`, by which huggingface_hub picks its exception.
        headers (`dict`, *optional*): More headers.
        body (`dict`, *optional*): More keys of the JSON body.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers or {}
        self.body = body or {}


def repo_not_found(anonymous: bool) -> HubError:
    """The same answer for a missing repo and for one that the caller may not see, as on the Hub."""
    if anonymous:
        return HubError(401, "Invalid username or password.", "RepoNotFound")
    return HubError(404, "Repository not found", "RepoNotFound")


def revision_not_found(revision: str) -> HubError:
    return HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(path: str, commit: str) -> HubError:
    # Clients cache that a file does not exist under the commit that this header names.
    return HubError(404, f"{path} does not exist at {commit}", "EntryNotFound", {"X-Repo-Commit": commit})
