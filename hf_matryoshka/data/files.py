"""Where files are kept, and how they are written so that a final name never holds half a file."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def default_cache_dir() -> Path:
    """`$HF_MATRYOSHKA_CACHE`, or `~/.cache/hf_matryoshka` where that is not set."""
    return Path(os.environ.get("HF_MATRYOSHKA_CACHE") or "~/.cache/hf_matryoshka").expanduser()


@contextmanager
def write_beside(path: str | Path) -> Iterator[Path]:
    """Gives a temporary name beside `path` to write a file or a folder to, and renames it to `path` at the end.

    When the body raises, what it wrote is removed and `path` stays as it was.

    Args:
        path (`str` or `Path`):
            The final name. Its folder is made when it is missing.

    Yields:
        `Path`: a name in the same folder that does not exist yet and that keeps the suffix of `path`.

    Raises:
        OSError: if the folder of `path` cannot be made or written to.
    """
    path = Path(path)
    ensure_writable_folder(path.parent)
    temporary = path.with_name(f".{path.stem}-{os.getpid()}-{os.urandom(4).hex()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


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
