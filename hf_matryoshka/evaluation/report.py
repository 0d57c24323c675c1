"""The one format in which benchmarks and the quickstart write their numbers."""

import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..data.files import write_beside


PACKAGES = ("torch", "transformers", "sentence-transformers", "mteb", "datasets", "numpy")
# Modules of what benchmarks compare with or compute with, where they do.
OTHERS = {
    "botorch": "botorch",
    "cma": "cma",
    "faiss": "faiss-cpu",
    "gpytorch": "gpytorch",
    "onnxruntime": "onnxruntime",
    "peft": "peft",
    "sklearn": "scikit-learn",
}


def write_report(path: str | os.PathLike, name: str, rows: Sequence[dict[str, Any]], **settings: Any) -> Path:
    """Writes result rows with what is needed to read them later.

    Args:
        path (`str` or `os.PathLike`): The JSON file; it appears only when it is whole.
        name (`str`): Name of the benchmark.
        rows (`Sequence[dict]`): For example those of [`~evaluation.curve.Curve.rows`].
        settings: Further top-level keys, for example how hyper-parameters were chosen.

    Returns:
        `Path`: The file.
    """
    report = {
        "name": name,
        "date": datetime.now(UTC).date().isoformat(),
        "command": " ".join([Path(sys.argv[0]).name, *map(_shown, sys.argv[1:])]),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        },
        "versions": {
            "python": platform.python_version(),
            "hf-matryoshka": __version__,
            **{package: version(package) for package in PACKAGES},
            **{package: version(package) for module, package in OTHERS.items() if module in sys.modules},
        },
        **settings,
        "rows": list(rows),
    }
    with write_beside(Path(path)) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return Path(path)


def _cpu() -> str:
    """The model of the processor where Linux says it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{platform.machine()}, {name}" if (name := next(names, "")) else platform.machine()


def _shown(argument: str) -> str:
    """An argument as others may read it: of a path on this machine only the name."""
    return Path(argument).name if Path(argument).is_absolute() else argument
