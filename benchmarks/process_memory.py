"""Private memory of a process, and what something takes that runs in one of its own."""

import json
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def private_mb(pid: int | str = "self") -> float:
    """`RssAnon` of a process in MB of 2^20 bytes: without the pages of files that the system keeps while it can."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise OSError("this system does not tell the private memory of a process")


def measured(function: Callable[..., dict[str, Any] | None], *arguments: Any) -> dict[str, Any]:
    """What a function gives (numbers by name) in a process of its own, where nothing is left of other runs, with
    `seconds`, `loaded_mb` (its memory before the call) and `peak_mb` (the most during it, looked at ten times a
    second).

    Raises:
        RuntimeError: If the process fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        process = multiprocessing.get_context("spawn").Process(target=_run, args=(function, arguments, result))
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"{function.__name__}{arguments} ended with {process.exitcode}")
        return json.loads(result.read_text())


def _run(function: Callable[..., dict[str, Any] | None], arguments: tuple, result: Path) -> None:
    first = peak = private_mb()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.1):
            peak = max(peak, private_mb())

    thread = threading.Thread(target=watch)
    thread.start()
    began = time.perf_counter()
    found = function(*arguments) or {}
    seconds = time.perf_counter() - began
    done.set()
    thread.join()
    result.write_text(json.dumps({"seconds": seconds, "loaded_mb": first, "peak_mb": peak} | found))
