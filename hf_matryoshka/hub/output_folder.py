"""Folders that appear under their final name only when they are whole."""

import glob
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..data.files import full_disk_code, hidden_name, is_hidden_name, is_leftover
from .manifest import MANIFEST_FILE


# Held while a process writes; tells its folders from those that a killed one left.
_LOCK = "lock"
_SECONDS_TO_LOCK = 60
_STAGED = ".staged"


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
    with staged_folders([output_dir]) as (folder,):
        yield folder


@contextmanager
def staged_folders(output_dirs: Sequence[str | os.PathLike]) -> Iterator[list[Path]]:
    """As [`staged_folder`], for several folders: if one cannot be replaced, none is."""
    paths = [Path(output_dir).resolve() for output_dir in output_dirs]
    begun = []
    with ExitStack() as stack:
        containers = [stack.enter_context(_container(output_dir)) for output_dir in output_dirs]
        staged = [container / "new" / path.name for container, path in zip(containers, paths, strict=True)]
        try:
            for folder in staged:
                folder.mkdir(parents=True)
            yield staged
            for output_dir, *swap in zip(output_dirs, paths, staged, containers, strict=True):
                begun.append(swap)
                _replace(output_dir, *swap)
        except BaseException as error:
            for swap in begun:
                _put_back(*swap)
            code = full_disk_code(error)
            if code is None:
                raise
            where = output_dirs[0] if len(paths) == 1 else paths[0].parent
            raise OSError(
                f"output_dir {where} cannot be written: {os.strerror(code).lower()}; nothing was changed there"
            ) from error


@contextmanager
def _container(output_dir: str | os.PathLike) -> Iterator[Path]:
    """A hidden folder beside `output_dir`, for what is written and for what it replaces; locked while it is used."""
    path = Path(output_dir).resolve()
    new_parents = [parent for parent in path.parents if not parent.exists()]
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _clear_leftovers(path)
            container = path.with_name(hidden_name(path.name, _STAGED))
            container.mkdir(mode=0o700)
        except OSError as error:
            raise type(error)(f"output_dir {output_dir} cannot be written: {error.strerror.lower()}") from error
        try:
            with FileLock(container / _LOCK):
                yield container
        finally:
            shutil.rmtree(container, ignore_errors=True)
    finally:
        for parent in new_parents:
            # Those that hold something by now stay.
            with suppress(OSError):
                parent.rmdir()


def _clear_leftovers(path: Path) -> None:
    """Remove what a killed process left beside a folder, after putting back what it was about to replace."""
    for container in path.parent.glob(f".{glob.escape(path.name)}-*{_STAGED}"):
        if not is_hidden_name(container.name, path.name, _STAGED):
            continue  # of a folder whose name begins with this one's
        if (container / _LOCK).is_file():
            # Whoever writes there holds it.
            with suppress(Timeout), FileLock(container / _LOCK, timeout=0):
                _clear(path, container)
        elif is_leftover(container.name, path.name, _STAGED):
            _clear(path, container)
        else:
            # Another process has made it just now, or one of another machine was killed before it locked.
            with suppress(OSError):
                if time.time() - container.stat().st_mtime > _SECONDS_TO_LOCK:
                    container.rmdir()


def _clear(path: Path, container: Path) -> None:
    if not path.exists():
        with suppress(FileNotFoundError):  # nothing was about to be replaced, or another process is at it
            os.replace(container / "old", path)
    shutil.rmtree(container, ignore_errors=True)


def _replace(output_dir: str | os.PathLike, path: Path, staged: Path, container: Path) -> None:
    try:
        if path.exists():
            os.replace(path, container / "old")
        os.replace(staged, path)
    except OSError as error:
        raise type(error)(
            f"output_dir {output_dir} cannot be replaced: {error.strerror.lower()}; nothing was changed"
        ) from error


def _put_back(path: Path, staged: Path, container: Path) -> None:
    if path.exists() and not staged.exists():
        os.replace(path, staged)
    if (container / "old").exists():
        os.replace(container / "old", path)
