"""File contents by their sha256, and JSON documents, written so that a crash leaves no half file."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from .errors import HubError


class StoredObject(NamedTuple):
    """What is known of a content: its size, its sha256 and the id that git gives it as a blob."""

    sha256: str
    size: int
    git_oid: str


def git_oid(content: bytes, kind: bytes = b"blob") -> str:
    return hashlib.sha1(kind + b" %d\0" % len(content) + content).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """The text that git stores in place of an LFS file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def write_json(path: Path, value: Any) -> None:
    """Write a document beside its place and rename it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


class ObjectStore:
    """Contents on disk under `folder/<two digits>/<sha256>`.

    Args:
        folder (`Path`): Where they lie.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / sha256

    def size(self, sha256: str) -> int | None:
        """Number of bytes, `None` if there is no such content."""
        path = self.path(sha256)
        return path.stat().st_size if path.is_file() else None

    def open(self, sha256: str) -> BinaryIO:
        return open(self.path(sha256), "rb")

    def read(self, sha256: str) -> bytes:
        return self.path(sha256).read_bytes()

    def add(self, chunks: Iterable[bytes], sha256: str | None = None, size: int | None = None) -> StoredObject:
        """Store a content; with `sha256` and `size` only if it is the announced one.

        Raises:
            HubError: With status 400 if the content is another one; nothing is kept then.
        """
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=".", suffix=".tmp")
        try:
            digest, found_size = hashlib.sha256(), 0
            with os.fdopen(handle, "wb") as file:
                for chunk in chunks:
                    digest.update(chunk)
                    found_size += len(chunk)
                    file.write(chunk)
            found = digest.hexdigest()
            if size is not None and found_size != size:
                raise HubError(400, f"LFS object {sha256} should have {size} bytes, but {found_size} were uploaded")
            if sha256 is not None and found != sha256:
                raise HubError(400, f"LFS object {sha256} was uploaded with the sha256 {found}")
            path = self.path(found)
            path.parent.mkdir(exist_ok=True)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return StoredObject(found, found_size, "")

    def add_bytes(self, content: bytes) -> StoredObject:
        return self.add([content])._replace(git_oid=git_oid(content))
