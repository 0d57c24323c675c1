"""The hub: its folder, its address, its log."""

import os
import secrets
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .accounts import Accounts
from .collection_store import Collections
from .faults import Faults
from .handler import HOSTS, ServedRequest, Server
from .names import check_namespace
from .objects import ObjectStore
from .repositories import Repositories
from .repository import MAIN, Commit, Repository


DEFAULT_MAX_UPLOAD_BYTES = 5 * 1024**3
_PROXIES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


# Requests that the log keeps, the last ones: a hub may serve for days.
LOG_SIZE = 10_000


class LocalHub:
    """The Hugging Face Hub's HTTP API on this machine, to rehearse a release or to test pushes and loads.

    Args:
        folder (`str` or `os.PathLike`, *optional*): Where repos are kept; a hub started again on the same folder
            serves the same. By default a temporary folder that `stop` removes.
        port (`int`, *optional*, defaults to `0`): Port; 0 takes a free one.
        user (`str`, *optional*, defaults to `"me"`): Name of the user whose namespace can be written to.
        orgs (`tuple`, *optional*): Names of organisations that can be written to as well.
        token (`str`, *optional*): The token that may write; by default the folder's, or a random one.
        faults ([`Faults`], *optional*): A flaky network on purpose.
        max_upload_bytes (`int`, *optional*, defaults to 5 GiB): Size from which an upload is refused.
        host (`str`, *optional*, defaults to `"127.0.0.1"`): Address; nothing but loopback is taken.
        on_request (`Callable`, *optional*): Called with each [`ServedRequest`] when it is done.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    ```python
    >>> from hf_matryoshka.hub import LocalHub
    >>> with LocalHub() as hub:
    ...     subprocess.run([sys.executable, "push.py"], env={**os.environ, **hub.environment()})
    ```
    """

    def __init__(
        self,
        folder: str | os.PathLike | None = None,
        port: int = 0,
        user: str = "me",
        orgs: tuple[str, ...] = (),
        token: str | None = None,
        faults: Faults | None = None,
        max_upload_bytes: int = DEFAULT_MAX_UPLOAD_BYTES,
        host: str = HOSTS[0],
        on_request: Callable[[ServedRequest], Any] = lambda request: None,
    ):
        if host not in HOSTS:
            raise ValueError(f"host is {host}; the local hub serves this machine only, at {' or '.join(HOSTS)}")
        if not 0 <= port <= 65535:
            raise ValueError(f"port is {port}; give a number from 0 (any free port) to 65535")
        if max_upload_bytes < 1:
            raise ValueError(f"max_upload_bytes is {max_upload_bytes}; give at least 1")
        if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token != ""):
            raise ValueError("token must be ASCII without spaces around it")
        for name in (user, *orgs):
            check_namespace(name)
        self.folder = None if folder is None else Path(folder)
        self.faults = faults
        self.max_upload_bytes = max_upload_bytes
        self.on_request = on_request
        self.requests: deque[ServedRequest] = deque(maxlen=LOG_SIZE)
        self.secret = secrets.token_bytes(32)
        self._port, self._host = port, host
        self._user, self._orgs, self._token = user, tuple(orgs), token
        self._temporary = folder is None
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        self._lock: FileLock | None = None

    @property
    def endpoint(self) -> str:
        """Address of the hub, for `HF_ENDPOINT`."""
        if self._server is None:
            raise RuntimeError("the local hub is not running; call start() or use it in a with block")
        return f"http://{self._host}:{self._server.server_address[1]}"

    @property
    def token(self) -> str:
        """The token that may read and write."""
        return self.accounts.token

    @property
    def read_token(self) -> str:
        """The token that may only read."""
        return self.accounts.read_token

    def start(self) -> "LocalHub":
        """Serve in a thread.

        Raises:
            OSError: If the port is taken, or the folder cannot be written or is served already.
        """
        try:
            server = Server((HOSTS[0], self._port), self)
        except OSError as error:
            raise OSError(f"port {self._port} cannot be used ({error.strerror}); give another port") from None
        try:
            if self._temporary:
                self.folder = Path(tempfile.mkdtemp(prefix="local-hub-"))
            self._open_folder()
            self._lock_folder()
            self.accounts = Accounts(self.folder, self._user, self._orgs, self._token)
        except BaseException:
            self._unlock_folder()
            server.server_close()
            raise
        self._server = server
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="local-hub", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving; a temporary folder is removed."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server.close_connections()
        self._thread.join()
        self._server = None
        self._unlock_folder()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> "LocalHub":
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()

    def reset(self) -> None:
        """Forget all repos, collections, logged requests and faults. Address and tokens stay."""
        self.faults = None
        for name in ("repos", "collections", "objects"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self._open_folder()
        self.requests.clear()

    def environment(self) -> dict[str, str]:
        """Environment variables by which a new process uses this hub and no other.

        Xet must be off: a client that has it would send large files to a storage that the local hub lacks.
        """
        found = {"HF_ENDPOINT": self.endpoint, "HF_TOKEN": self.token, "HF_HUB_DISABLE_XET": "1"}
        if any(os.environ.get(name) for name in _PROXIES):
            others = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
            found["NO_PROXY"] = ",".join(filter(None, (others, *HOSTS)))
        return found

    def repos(self, repo_type: str | None = None) -> list[str]:
        """Ids of all repos, or of those of one type."""
        return [repo.id for repo in self.repositories.listing(repo_type)]

    def commits(self, repo_id: str, repo_type: str = "model", revision: str = MAIN) -> list[Commit]:
        """Commits of a repo, newest first; the last is the one that created it."""
        return list(self._repo(repo_id, repo_type).history(revision))

    def files(self, repo_id: str, repo_type: str = "model", revision: str = MAIN) -> dict[str, bytes]:
        """Contents of all files of a repo by path."""
        files = self._repo(repo_id, repo_type).commit(revision).files
        return {path: self.objects.read(file.sha256) for path, file in files.items()}

    def bytes_served(self, repo_id: str, path: str | None = None, repo_type: str = "model") -> int:
        """Bytes of a repo's file (or of all its files) that were sent in the requests that the log still has."""
        return sum(
            request.sent
            for request in list(self.requests)
            if request.file is not None
            and request.file[:2] == (repo_type, repo_id)
            and path in (None, request.file[2])
        )

    def _repo(self, repo_id: str, repo_type: str) -> Repository:
        repo = self.repositories.find(repo_type, repo_id)
        if repo is None:
            raise KeyError(f"the local hub has no {repo_type} {repo_id}")
        return repo

    def _lock_folder(self) -> None:
        """Two hubs on one folder would overwrite each other's commits."""
        lock = FileLock(self.folder / ".lock", timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise OSError(f"another local hub serves {self.folder}; stop it or name another folder") from None
        self._lock = lock

    def _unlock_folder(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _open_folder(self) -> None:
        self.objects = ObjectStore(self.folder / "objects")
        self.repositories = Repositories(self.folder / "repos", self.objects)
        self.collections = Collections(self.folder / "collections")
