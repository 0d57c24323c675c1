"""File names that come out of a file stay in the folder of that file."""

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath


def check_inside(folder: str | os.PathLike, names: Iterable[str]) -> None:
    """Raise unless each of these names, read from a file of a folder, is one inside of the folder.

    Links are not followed: the Hub's own cache is made of them.

    Args:
        folder (`str` or `os.PathLike`): The folder.
        names (`Iterable[str]`): Relative paths with slashes; `""` and `"."` are the folder itself.

    Raises:
        ValueError: If one is absolute or leads out; the message names it.
        TypeError: If one is no text.
    """
    for name in names:
        posix, windows = PurePosixPath(name), PureWindowsPath(name)
        leaves = posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts or "\0" in name
        if leaves:
            raise ValueError(f"{folder} names the file {name!r}, which is outside of it; nothing was read")


def check_no_links_out(folder: Path) -> None:
    """Raise `ValueError` if a link in a folder leads out of it: what is pushed is what is in the folder."""
    root = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise ValueError(
                f"{path} is a link to {os.readlink(path)}, outside of {folder}; put the file itself there"
            )
