"""Jobs in forked processes, which die or run out of disk at a moment of choice, and what they leave behind."""

import json
import os
import resource
import shutil
import signal
import sys
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from safetensors import safe_open

from hf_matryoshka.data.arrow import read_arrow


# What changes files, as Python tells its audit hooks before it does so.
CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}
# What is another in every run.
VOLATILE = {"seconds", "date", "resumed_from_step", "tokens_per_second", "training_loss", "_fingerprint"}


def in_fork(job: Callable[[], Any], before: Callable[[], Any] = lambda: None) -> tuple[int, str]:
    """Runs a job in a fork of this process, which has imported everything already.

    Returns:
        Its exit status, negative for a signal, and what it raised or returned.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            before()
            said, status = str(job()), 0
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
            if os.environ.get("HF_MATRYOSHKA_DEBUG"):
                traceback.print_exc()
        finally:
            os.write(writing, said.encode()[:60_000])
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def killed(job: Callable[[], Any], root: Path, moment: int | None) -> int | None:
    """Runs a job that kills itself before its `moment`-th change of a file under `root`.

    Returns:
        `None` if it was killed; else how many changes there were.
    """
    count = 0

    def count_changes() -> None:
        def hook(event: str, arguments: tuple) -> None:
            nonlocal count
            if event not in CHANGES or not str(arguments[0]).startswith(str(root)):
                return
            if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

        sys.addaudithook(hook)

    def counted() -> int:
        job()
        return count

    status, said = in_fork(counted, count_changes)
    if status == -signal.SIGKILL:
        return None
    assert status == 0, said
    return int(said)


def survives_kills(job: Callable[[Path], Any], root: Path, kills: int = 10, final: str = ".") -> None:
    """Kills a job at moments all over its course, each time in a folder of its own, and goes on: what it ends with
    must be what it ends with undisturbed.

    Args:
        job (`Callable[[Path], Any]`): The job; it writes under the folder it is given, which may hold things already.
        root (`Path`): A folder whose `start/`, if there is one, is what every job starts with.
        kills (`int`, *optional*, defaults to 10): How often.
        final (`str`, *optional*): What is compared, relative to the folder of the job.
    """

    def begin(name: str) -> Path:
        # All under one name: a name may be part of what is written.
        folder = root / "job"
        shutil.rmtree(folder, ignore_errors=True)
        if (root / "start").is_dir():
            shutil.copytree(root / "start", folder)
        else:
            folder.mkdir()
        return folder

    folder = begin("whole")
    changes = killed(lambda: job(folder), folder, None)
    expected = content(folder / final)
    assert expected and changes >= kills, (changes, list(expected))
    for moment in np.linspace(0, changes - 1, kills).round().astype(int).tolist():
        folder = begin(str(moment))
        assert killed(lambda: job(folder), folder, moment) is None, moment  # noqa: B023
        check_whole(folder)
        assert killed(lambda: job(folder), folder, None) is not None  # noqa: B023
        found = content(folder / final)
        assert found.keys() == expected.keys(), moment
        assert not [name for name in found if found[name] != expected[name]], moment
        assert not [path for path in folder.rglob(".*") if path.is_file() or any(path.iterdir())], moment


def content(folder: Path) -> dict[str, Any]:
    """All files with their content, of JSON documents without what is another in every run."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            found[str(path.relative_to(folder))] = _steady(json.loads(data)) if path.suffix == ".json" else data
    return found


def check_whole(folder: Path) -> None:
    """Whether every file can be read that has its final name, that is none of whose folders is hidden."""
    readers = {
        ".json": lambda path: json.loads(path.read_text()),
        ".safetensors": lambda path: safe_open(path, "np").__enter__(),
        ".arrow": read_arrow,
        ".parquet": pq.read_table,
        ".npy": np.load,
        ".pt": zipfile.ZipFile,
        ".pth": zipfile.ZipFile,
    }
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and path.suffix in readers:
            readers[path.suffix](path)


def limit_files(size: int) -> Callable[[], None]:
    """From then on no file may grow beyond `size` bytes: what a full disk is to whoever writes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _steady(item) for name, item in value.items() if name not in VOLATILE}
    return [_steady(item) for item in value] if isinstance(value, list) else value
