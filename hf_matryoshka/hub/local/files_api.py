"""Downloads: the content of a file at a revision, whole or in part."""

import mimetypes
import re
from typing import TYPE_CHECKING

from .access import named_repo
from .errors import HubError
from .messages import Request, Response
from .repository import FileEntry


if TYPE_CHECKING:
    from .local_hub import LocalHub

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def resolve(hub: "LocalHub", request: Request) -> Response:
    repo = named_repo(hub, request)
    path = request.names["path"]
    commit, file = repo.file(request.names["revision"], path)
    headers = {
        "Content-Type": mimetypes.guess_type(path)[0] or "application/octet-stream",
        "ETag": f'"{file.etag}"',
        "X-Repo-Commit": commit.sha,
        "Accept-Ranges": "bytes",
        # A browser must never show a pushed page as one of this site.
        "Content-Disposition": "attachment",
        "X-Content-Type-Options": "nosniff",
    }
    if file.lfs:
        headers |= {"X-Linked-ETag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
    status, start, size = 200, 0, file.size
    part = _part(request.headers.get("Range"), file) if request.method == "GET" else None
    if part is not None:
        status, (start, end) = 206, part
        size = end - start
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    return Response(
        status=status, headers=headers, sha256=file.sha256, start=start, size=size, file=(repo.type, repo.id, path)
    )


def _part(header: str | None, file: FileEntry) -> tuple[int, int] | None:
    """First byte and end of the part that a `Range` header asks for, `None` for the whole file.

    Raises:
        HubError: With status 416 if the file has no such part.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or not (match[1] or match[2]):
        return None  # a form that HTTP allows a server to ignore
    if match[1]:
        start, end = int(match[1]), min(int(match[2] or file.size), file.size - 1) + 1
        if match[2] and int(match[2]) < int(match[1]):
            return None
    else:
        start, end = max(file.size - int(match[2]), 0), file.size
    if start >= end:
        raise HubError(
            416, f"The file has {file.size} bytes, not {header}", headers={"Content-Range": f"bytes */{file.size}"}
        )
    return start, end
