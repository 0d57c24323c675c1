"""A request as the routes see it, and what they answer."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlencode

from .accounts import Account
from .errors import HubError


MAX_DOCUMENT = 16 * 1024 * 1024
CHUNK = 1024 * 1024


class Body:
    """The bytes that a client sends, read no further than they are asked for and never beyond a limit.

    Args:
        file (`BinaryIO`): The connection.
        length (`int`, *optional*): The announced number of bytes, `None` if the client sends chunks.
    """

    def __init__(self, file: BinaryIO, length: int | None):
        self._file = file
        self._length = length
        self._left = length or 0  # of the whole body, or of the present chunk
        self._ended = length == 0
        self._buffer = b""
        self.received = 0

    @property
    def ended(self) -> bool:
        return self._ended

    def limit(self, size: int) -> None:
        """Refuse an announced size before a byte is read."""
        if self._length is not None and self._length > size:
            raise too_large(size)

    def chunks(self, limit: int) -> Iterator[bytes]:
        """What is left of the body, in pieces.

        Raises:
            HubError: With status 413 beyond `limit` bytes, 400 if the client stopped early.
        """
        self.limit(limit)
        while piece := self._read(CHUNK):
            if self.received > limit:
                raise too_large(limit)
            yield piece

    def lines(self, limit: int, longest: int) -> Iterator[bytes]:
        """The lines of the body, which are held in memory one at a time and so have a limit of their own."""
        rest: list[bytes] = []
        for piece in self.chunks(limit):
            *whole, last = piece.split(b"\n")
            for line in whole:
                yield b"".join([*rest, line])
                rest = []
            rest.append(last)
            if sum(map(len, rest)) > longest:
                raise HubError(413, f"A line of the commit has more than {longest} bytes; upload large files with LFS")
        yield b"".join(rest)

    def _read(self, size: int) -> bytes:
        if self._ended:
            return b""
        if self._length is None and self._left == 0:
            self._next_chunk()
            if self._ended:
                return b""
        piece = self._file.read(min(size, self._left))
        if not piece:
            self._ended = True
            raise HubError(400, "The connection ended before the announced end of the body")
        self._left -= len(piece)
        self.received += len(piece)
        if self._left == 0:
            if self._length is None:
                self._file.readline(8)
            else:
                self._ended = True
        return piece

    def _next_chunk(self) -> None:
        head = self._file.readline(64).split(b";")[0].strip()
        try:
            self._left = int(head, 16)
        except ValueError:
            self._ended = True
            raise HubError(400, "The body's chunks are malformed") from None
        if self._left == 0:
            while self._file.readline(1024).strip():
                pass
            self._ended = True


@dataclass
class Request:
    """One request; `names` are the checked parts of its path."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Any
    body: Body
    account: Account | None = None
    names: dict[str, str] = field(default_factory=dict)

    def flag(self, name: str) -> bool:
        return self.query.get(name, [""])[-1].lower() in ("1", "true")

    def text(self, name: str) -> str | None:
        return self.query.get(name, [None])[-1]

    def content(self) -> bytes:
        return b"".join(self.body.chunks(MAX_DOCUMENT))

    def json(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            HubError: With status 400 if it is none.
        """
        return parse_object(self.content())

    def json_or_form(self) -> dict[str, Any]:
        """The body as a JSON object or, as some clients send lists, as a form."""
        if "json" in self.headers.get("Content-Type", ""):
            return self.json()
        return dict(parse_qs(self.content().decode(errors="replace"), keep_blank_values=True))


@dataclass
class Response:
    """An answer: a JSON value, or `size` bytes of the stored content `sha256` from `start`.

    Args:
        value (`Any`): What becomes the JSON body; `None` for no body.
        status (`int`): HTTP status.
        headers (`dict`): More headers.
        sha256 (`str`, *optional*): Content to send.
        start (`int`): Its first byte.
        size (`int`): Number of its bytes.
        file (`tuple`, *optional*): (repo type, repo id, path) for the log of served files.
    """

    value: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    sha256: str | None = None
    start: int = 0
    size: int = 0
    file: tuple[str, str, str] | None = None


def parse_object(text: bytes | str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise HubError(400, "The request's body is no valid JSON") from None
    if not isinstance(value, dict):
        raise HubError(400, f"The request's body must be a JSON object, not a {type(value).__name__}")
    return value


def expect(value: dict[str, Any], key: str, kind: type, default: Any = ...) -> Any:
    """`value[key]` if it is of the type.

    Raises:
        HubError: With status 400 if it is not, or if it is missing and has no default.
    """
    found = value.get(key, default)
    wrong = not isinstance(found, kind) or (kind is int and isinstance(found, bool))
    if found is ... or (found is not default and wrong):
        raise HubError(400, f"The request's {key!r} is {value.get(key)!r}; it must be a {kind.__name__}")
    return found


def too_large(limit: int) -> HubError:
    return HubError(413, f"The upload is larger than {limit} bytes, the limit of this hub")


def paginate(request: Request, items: list[Any], default_limit: int, endpoint: str) -> Response:
    """One page of a list, with the address of the next one in the `Link` header."""
    start, limit = (_number(request, name, default) for name, default in (("cursor", 0), ("limit", default_limit)))
    headers = {}
    if start + limit < len(items):
        query = urlencode({**request.query, "cursor": [start + limit]}, doseq=True)
        headers["Link"] = f'<{endpoint}{request.path}?{query}>; rel="next"'
    return Response(items[start : start + limit], headers=headers)


def _number(request: Request, name: str, default: int) -> int:
    text = request.text(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or (name == "limit" and not int(text)):
        raise HubError(400, f"The query's {name} is {text!r}; it must be a number")
    return int(text)
