"""HTTP: reads requests, has the routes answer them, writes answers, and counts what goes over the wire."""

import errno
import json
import re
import socket
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from .errors import HubError
from .messages import CHUNK, Body, Request, Response
from .routes import answer


if TYPE_CHECKING:
    from .local_hub import LocalHub

HOSTS = ("127.0.0.1", "localhost")
# What is left of a refused or unread body is thrown away up to here, so that the client reads the answer and does
# not find the connection reset; beyond it, the connection closes.
MAX_DISCARD = 8 * 1024 * 1024


@dataclass
class ServedRequest:
    """One line of the hub's log.

    Args:
        method (`str`): HTTP method.
        path (`str`): Path as sent, without the query.
        status (`int`): Status of the answer; also of one that was then dropped, 0 if the request was not looked at.
        received (`int`): Bytes of the request's body that were read.
        sent (`int`): Bytes of a stored file that were sent in the answer's body.
        file (`tuple`, *optional*): (repo type, repo id, path) of that file.
        fault (`str`, *optional*): The fault that met the request: "drop_before", "drop_after", "cut" or "delay".
        error (`str`, *optional*): Why the request was refused.
        seconds (`float`): How long it took.
    """

    method: str
    path: str
    status: int = 0
    received: int = 0
    sent: int = 0
    file: tuple[str, str, str] | None = None
    fault: str | None = None
    error: str | None = None
    seconds: float = 0.0


class Server(ThreadingHTTPServer):
    """The sockets of a hub. Stopping it also ends the connections that clients keep alive."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], hub: "LocalHub"):
        self.hub = hub
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, Handler)

    # Of TCP, so a request is always a socket.
    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        """A client that went away is its own business; anything else is printed."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def close_connections(self) -> None:
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "hf-matryoshka-hub"
    sys_version = ""
    timeout = 60
    disable_nagle_algorithm = True  # headers and body are two writes: they must not wait for each other
    server: Server

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def log_message(self, *args) -> None:
        """The hub keeps its own log."""

    def _serve(self) -> None:
        hub = self.server.hub
        began = time.monotonic()
        parts = urlsplit(self.path)
        entry = ServedRequest(self.command, parts.path)
        faults = hub.faults
        entry.fault = faults.draw() if faults else None
        body = Body(self.rfile, 0)
        hub.requests.append(entry)
        try:
            try:
                body = self._body()
                if entry.fault == "delay":
                    time.sleep(faults.delay_seconds)
                if entry.fault == "drop_before":
                    self._discard(body)
                    self.close_connection = True
                    return
                self._check_host()
                query = parse_qs(parts.query, keep_blank_values=True)
                request = Request(self.command, parts.path, query, self.headers, body)
                response = answer(hub, request)
            except Exception as error:
                response = _refusal(error)
                entry.error = response.value["error"]
            entry.status = response.status
            self._discard(body)
            entry.received = body.received
            if entry.fault == "drop_after":
                self.close_connection = True
                return
            self._write(response, entry)
        except OSError:
            self.close_connection = True  # the client went away
        finally:
            entry.received = body.received
            entry.seconds = time.monotonic() - began
            hub.on_request(entry)

    def _body(self) -> Body:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return Body(self.rfile, None)
        text = self.headers.get("Content-Length", "0")
        if not re.fullmatch(r"[0-9]{1,18}", text):
            self.close_connection = True
            raise HubError(400, f"The Content-Length {text[:40]!r} is no number of bytes")
        return Body(self.rfile, int(text))

    def _check_host(self) -> None:
        """A page of another site that resolves its own name to this machine is not to reach the hub."""
        if self.headers.get("Host", "").partition(":")[0].lower() not in HOSTS:
            raise HubError(400, f"The local hub answers to 127.0.0.1 only, not to {self.headers.get('Host')!r}")

    def _discard(self, body: Body) -> None:
        if body.ended:
            return
        try:
            for _ in body.chunks(body.received + MAX_DISCARD):
                pass
        except HubError:
            self.close_connection = True

    def _write(self, response: Response, entry: ServedRequest) -> None:
        content = b"" if response.value is None else json.dumps(response.value).encode()
        size = response.size if response.sha256 else len(content)
        # To a HEAD request the answer has the headers of the content and no content.
        silent = self.command == "HEAD" or response.status in (204, 304)
        cut = entry.fault == "cut" and size > 0 and not silent
        self.send_response(response.status)
        if response.sha256 is None:
            self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(size))
        for name, value in response.headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if cut:
            size, self.close_connection = size // 2, True
        if silent:
            return
        if response.sha256 is None:
            self.wfile.write(content[:size])
        else:
            entry.file = response.file
            self._write_object(response, size, entry)

    def _write_object(self, response: Response, size: int, entry: ServedRequest) -> None:
        with self.server.hub.objects.open(response.sha256) as file:
            file.seek(response.start)
            while size > 0 and (piece := file.read(min(CHUNK, size))):
                size -= len(piece)
                # Counted first: who has received it all must find it in the log.
                entry.sent += len(piece)
                try:
                    self.wfile.write(piece)
                except OSError:
                    entry.sent -= len(piece)
                    raise


def _refusal(error: Exception) -> Response:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        error = HubError(507, "The disk of the local hub is full; nothing was stored")
    if not isinstance(error, HubError):
        error = HubError(500, f"The local hub failed: {type(error).__name__}: {error}")
    headers = {"X-Error-Message": " ".join(error.message.split()).encode("ascii", "replace").decode(), **error.headers}
    if error.code:
        headers["X-Error-Code"] = error.code
    return Response({"error": error.message, **error.body}, error.status, headers)
