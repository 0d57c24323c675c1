"""Where files are kept, and how they are written so that a final name never holds half a file."""

import errno
import hashlib
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


# What the system says when a disk or a quota is full, a file may not grow, or nothing may be written at all.
_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
# How libraries in Rust hide that in the text of an error of their own.
_RUST = re.compile(r"\(os error (\d+)\)")


def default_cache_dir() -> Path:
    """`$HF_MATRYOSHKA_CACHE`, or `~/.cache/hf_matryoshka` where that is not set."""
    return Path(os.environ.get("HF_MATRYOSHKA_CACHE") or "~/.cache/hf_matryoshka").expanduser()


@contextmanager
def write_beside(path: str | Path) -> Iterator[Path]:
    """Gives a temporary name beside `path` to write a file or a folder to, and renames it to `path` at the end.

    When the body raises, what it wrote is removed and `path` stays as it was. What processes left that were killed
    meanwhile goes with the next call for the same `path`.

    Args:
        path (`str` or `Path`):
            The final name. Its folder is made when it is missing.

    Yields:
        `Path`: a name in the same folder that does not exist yet and that keeps the suffix of `path`.

    Raises:
        OSError: if the folder of `path` cannot be made or written to; with one sentence if a disk is full.
    """
    path = Path(path)
    ensure_writable_folder(path.parent)
    remove_leftovers(path)
    temporary = path.with_name(hidden_name(path.stem, path.suffix))
    try:
        with writing(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        _remove(temporary)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Lets a full or read-only disk be told in one sentence that names `path`, whichever library met it.

    Raises:
        OSError: in the place of such an error; its `errno` is that of the system.
    """
    try:
        yield
    except Exception as error:
        code = full_disk_code(error)
        if code is None:
            raise
        said = OSError(f"{path} cannot be written: {os.strerror(code).lower()}; what was there before is unchanged")
        said.errno = code
        raise said from error


def full_disk_code(error: BaseException) -> int | None:
    """The `errno` of an error that says that a disk is full, or read-only; `None` of another error."""
    code = error.errno if isinstance(error, OSError) else None
    hidden = _RUST.search(str(error))
    # NumPy counts the values that found no room.
    if hidden is None and code is None and isinstance(error, OSError) and str(error).endswith(" written"):
        code = errno.ENOSPC
    code = int(hidden[1]) if hidden else code
    return code if code in _UNWRITABLE else None


@contextmanager
def reading_weights(folder: str | Path) -> Iterator[None]:
    """Lets a damaged file of weights be told in one sentence that names its folder.

    Raises:
        ValueError: in the place of what safetensors says.
    """
    try:
        yield
    except SafetensorError as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"the weights in {folder} are damaged ({said}); copy, download or train them again"
        ) from error


def remove_leftovers(path: str | Path) -> None:
    """Removes what processes of this machine that are no more were writing as `path`; of others nothing is known."""
    path = Path(path)
    for entry in os.listdir(path.parent) if path.parent.is_dir() else ():
        if is_leftover(entry, path.stem, path.suffix):
            _remove(path.parent / entry)


def hidden_name(stem: str, suffix: str = "") -> str:
    """A new hidden name that says which process of which machine writes under it."""
    return f".{stem}-{_machine()}-{os.getpid()}-{os.urandom(4).hex()}{suffix}"


def is_hidden_name(name: str, stem: str, suffix: str = "") -> bool:
    """Whether a name is a `hidden_name`, of any process."""
    return _hidden(name, stem, suffix) is not None


def is_leftover(name: str, stem: str, suffix: str = "") -> bool:
    """Whether a name is a `hidden_name` of a process of this machine that is no more."""
    found = _hidden(name, stem, suffix)
    return found is not None and found["machine"] == _machine() and not _is_running(int(found["process"]))


def _hidden(name: str, stem: str, suffix: str) -> re.Match | None:
    writer = r"(?P<machine>[0-9a-f]{6})-(?P<process>\d+)-[0-9a-f]{8}"
    return re.fullmatch(rf"\.{re.escape(stem)}-{writer}{re.escape(suffix)}", name)


def ensure_writable_folder(folder: str | Path) -> Path:
    """Makes `folder` when it is missing and checks that files can be written to it.

    Raises:
        OSError: with one sentence, if it cannot be made or is not writable.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"cannot make the folder {folder} ({error.strerror}); give a folder that you can write to"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"the folder {folder} is not writable; give a folder that you can write to")
    return folder


def _machine() -> str:
    """A few digits of this machine: a folder may be shared with others, whose processes have the same numbers."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


def _is_running(process: int) -> bool:
    if os.name != "posix":  # elsewhere a signal 0 is no question
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
