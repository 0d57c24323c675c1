"""Folders that appear under their final name only when they are whole."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .manifest import MANIFEST_FILE


# What the system says when a disk or a quota is full, or a file may not grow.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_output_dir(output_dir: str | os.PathLike, overwrite: bool = False) -> None:
    """Raise unless an export may take this name.

    Args:
        output_dir (`str` or `os.PathLike`): A new or empty folder, or an earlier export.
        overwrite (`bool`, *optional*, defaults to `False`): Whether any folder may be replaced.

    Raises:
        NotADirectoryError: If it is a file.
        FileExistsError: If it holds files that are not an earlier export.
    """
    path = Path(output_dir)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"output_dir {path} is a file; name a folder")
    # Every export holds a manifest; a folder without one is not ours to replace.
    if overwrite or not path.is_dir() or (path / MANIFEST_FILE).is_file():
        return
    if any(path.iterdir()):
        raise FileExistsError(
            f"output_dir {path} holds files that are not an earlier export; name a new folder or pass overwrite=True"
        )


@contextmanager
def staged_folder(output_dir: str | os.PathLike) -> Iterator[Path]:
    """A folder to write into, which replaces `output_dir` when the block ends without an error.

    Its own name is that of `output_dir`, because transformers names remote code after the folder.

    Raises:
        OSError: If nothing can be written beside `output_dir`; before the block starts.
    """
    path = Path(output_dir).resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        container = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise type(error)(f"output_dir {output_dir} cannot be written: {error.strerror.lower()}") from error
    try:
        staged = container / "new" / path.name
        staged.mkdir(parents=True)
        yield staged
        if path.exists():
            os.replace(path, container / "old")
        os.replace(staged, path)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(
            f"output_dir {output_dir} cannot be written: {error.strerror.lower()}; nothing was left there"
        ) from error
    finally:
        if (container / "old").exists() and not path.exists():
            # Interrupted between the two.
            os.replace(container / "old", path)
        shutil.rmtree(container, ignore_errors=True)
