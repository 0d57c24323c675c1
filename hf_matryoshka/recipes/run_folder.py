"""The folder of a training run: new, continued, or refused."""

import json
import os
import shutil
from pathlib import Path

from ..data.files import ensure_writable_folder, remove_leftovers, write_beside


# Quality against cost of each level on held-out texts, which an export shows in its cards, and the same by a second
# measure, for runs that have one.
CURVE_FILE, OVERLAP_FILE = "curve.json", "overlap_curve.json"


def open_run(folder: str | Path, key: str, overwrite: bool = False) -> Path:
    """Makes the folder of a run, or opens it to go on.

    Args:
        folder (`str` or `Path`): The folder.
        key (`str`): Equal for runs with the same data and options.
        overwrite (`bool`, *optional*, defaults to `False`): Whether to delete another run that lies there.

    Returns:
        `Path`: The folder.

    Raises:
        ValueError: If it holds other files or another run, or this is one of several processes of a launcher.
        OSError: If it cannot be written.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise ValueError(
            f"a run is made by one process, but the launcher started {processes}; call it without torchrun, or train "
            "with the trainer itself under torchrun"
        )
    folder = Path(folder)
    mark = folder / "run.json"
    # Of a call that was killed before there was a run.
    remove_leftovers(mark)
    if folder.is_dir() and os.listdir(folder):
        same = _key_of(mark) == key
        if not same and not overwrite:
            raise ValueError(
                f"{folder} holds other files or a run with other data or options; name another folder or overwrite it"
            )
        if not same:
            # The mark first: what an interruption leaves is then no run that would go on.
            mark.unlink(missing_ok=True)
            shutil.rmtree(folder)
    ensure_writable_folder(folder)
    with write_beside(mark) as temporary:
        temporary.write_text(json.dumps({"key": key}) + "\n", encoding="utf-8")
    return folder


def _key_of(mark: Path) -> str | None:
    """The key of the run that lies there, `None` without one."""
    try:
        return json.loads(mark.read_text(encoding="utf-8"))["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
