"""What is installed and what this machine can do, found without anything that may be missing."""

import importlib.metadata
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..data.files import default_cache_dir


NAME = "hf-matryoshka"
# What the extras are for. One that is not named here is listed too; `dev` is not: it has nothing that a user lacks.
EXTRAS = {
    "browser": "the test of the page that `space` writes, in a Chromium",
    "docs": "the site that `make docs` builds",
    "onnx": "ONNX graphs: `export --onnx`, and repos that hold one",
    "quickstart": "all-MiniLM-L6-v2, the default base model, without the Hub",
    "space": "the page that `space` writes, on this machine, and demo Spaces of the metrics",
}
DEVELOPMENT = "dev"
# What a Chromium of the system is called on the PATH.
CHROMIUMS = ("chromium-headless-shell", "chromium", "google-chrome")
# Further packages that something here uses where they are: what for, and how to get them.
FURTHER = {
    "causal-conv1d": ("stock Mamba2 models on a GPU, which `bench mamba` compares with", "pip install causal-conv1d"),
    "mamba-ssm": ("the CUDA kernel of the Mamba encoder; plain torch without", "pip install mamba-ssm"),
    "tensorboard": ("`--report_to tensorboard` when training", "pip install tensorboard"),
    "trackio": ("`--report_to trackio` when training", "pip install trackio"),
}
# It does not load beside transformers 5, so that what is installed here says nothing.
VEC2TEXT = (
    "texts from embeddings (Vec2TextDecoder), in a Python environment of its own",
    "python3.11 -m venv vec2text-env && vec2text-env/bin/pip install vec2text==0.0.13 transformers==4.46.3 "
    "accelerate==1.1.1",
)


@dataclass
class Package:
    """A package, installed or not.

    Args:
        name (`str`): Its name.
        installed (`str`, *optional*): Its version here.
        needed (`str`): Which versions fit, as pip writes it; empty for any.
        required (`bool`): Whether nothing works without.
        purpose (`str`): What an optional one is for.
        status (`str`): `"ok"`, `"missing"`, `"too old"`, `"not supported"` (a newer one, or another than the only one
            that fits) or `"elsewhere"` (belongs into an environment of its own).
        install (`str`, *optional*): The command that makes it fit.
    """

    name: str
    installed: str | None
    needed: str
    required: bool
    purpose: str
    status: str
    install: str | None


def find_packages() -> list[Package]:
    """Python, what the package requires, its extras, and what it uses where it is."""
    from packaging.requirements import Requirement

    try:
        metadata = importlib.metadata.metadata(NAME)
    except importlib.metadata.PackageNotFoundError:
        return [Package(NAME, None, "", True, "", "missing", f"pip install {NAME}")]
    python = Requirement(f"python{metadata['Requires-Python']}")
    found = [_package(python, platform.python_version(), True, "", f"install Python {python.specifier}")]
    extras = [extra for extra in metadata.get_all("Provides-Extra") or () if extra != DEVELOPMENT]
    optional: dict[str, Package] = {}
    for line in importlib.metadata.requires(NAME) or []:
        requirement = Requirement(line)
        version = _version(requirement.name)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found.append(_package(requirement, version, True, "", f'pip install "{_plain(requirement)}"'))
            continue
        for extra in extras:
            if requirement.marker.evaluate({"extra": extra}):
                command = f'pip install "{NAME}[{extra}]"'
                package = _package(requirement, version, False, EXTRAS.get(extra, f"the extra `{extra}`"), command)
                # What several extras have is for the first of them.
                optional.setdefault(requirement.name, package)
    for name, (purpose, command) in FURTHER.items():
        optional[name] = _package(Requirement(name), _version(name), False, purpose, command)
    elsewhere = Package("vec2text", None, "==0.0.13", False, VEC2TEXT[0], "elsewhere", VEC2TEXT[1])
    return [*found, *optional.values(), elsewhere]


def find_chromium() -> str | None:
    """The Chromium that playwright is given, which is not started; `None` if the PATH has none."""
    return next(filter(None, map(shutil.which, CHROMIUMS)), None)


def describe_machine() -> dict[str, Any]:
    """Cores, threads, bfloat16 and accelerators; an `error` where torch does not load."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine: dict[str, Any] = {"system": platform.platform(), "cores": cores}
    try:
        import torch
    except (ImportError, OSError) as error:
        return {**machine, "error": f"torch does not load: {' '.join(str(error).split())}"}
    machine |= {"threads": torch.get_num_threads(), "cpu_bf16": _cpu_bf16(torch), "devices": []}
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            machine["devices"].append(
                {
                    "device": f"cuda:{index}",
                    "name": properties.name,
                    "memory_gb": round(properties.total_memory / 1e9, 1),
                    "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
                }
            )
    elif torch.accelerator.is_available() and (kind := torch.accelerator.current_accelerator()) is not None:
        machine["devices"] = [{"device": f"{kind.type}:{index}"} for index in range(torch.accelerator.device_count())]
    return machine


def describe_caches() -> list[dict[str, Any]]:
    """Folders of caches, and the free disk where they are or will be."""
    hub = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    found = []
    for name, folder in (("embeddings", default_cache_dir()), ("Hugging Face", hub.expanduser())):
        there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        free = round(shutil.disk_usage(there).free / 1e9, 1)
        found.append({"name": name, "path": str(folder), "writable": os.access(there, os.W_OK), "free_gb": free})
    return found


def describe_hub(online: bool = False) -> dict[str, Any]:
    """Where the Hub is and whether there is a token; with `online` one request says whether it answers."""
    try:
        from huggingface_hub import constants, get_session, get_token
    except ImportError as error:
        return {"error": f"huggingface_hub does not load: {error}"}
    hub = {"endpoint": constants.ENDPOINT, "offline_mode": constants.HF_HUB_OFFLINE, "token": get_token() is not None}
    if not online:
        return {**hub, "reachable": None}
    try:
        get_session().get(f"{constants.ENDPOINT}/api/models", params={"limit": 1}, timeout=10).raise_for_status()
    except Exception as error:  # of the HTTP client, or that offline mode forbids it
        return {**hub, "reachable": False, "error": " ".join(str(error).split()) or type(error).__name__}
    return {**hub, "reachable": True}


def describe(online: bool = False) -> dict[str, Any]:
    """All of it; `ok` says that nothing required is missing, too old or broken."""
    packages, machine = find_packages(), describe_machine()
    fits = all(package.status == "ok" for package in packages if package.required)
    return {
        "ok": fits and "error" not in machine,
        "packages": [asdict(package) for package in packages],
        "machine": machine,
        "chromium": find_chromium(),
        "caches": describe_caches(),
        "hub": describe_hub(online),
    }


def _package(requirement: Any, installed: str | None, required: bool, purpose: str, install: str) -> Package:
    status = _status(requirement, installed)
    needed = str(requirement.specifier)
    return Package(requirement.name, installed, needed, required, purpose, status, None if status == "ok" else install)


def _status(requirement: Any, installed: str | None) -> str:
    from packaging.version import Version

    if installed is None:
        return "missing"
    if requirement.specifier.contains(installed, prereleases=True):
        return "ok"
    lowest = [item.version for item in requirement.specifier if item.operator in (">=", "==", "~=", ">")]
    return "too old" if any(Version(installed) < Version(version) for version in lowest) else "not supported"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _plain(requirement: Any) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _cpu_bf16(torch: Any) -> bool:
    """Whether the CPU computes in bfloat16 itself; otherwise it works, but slower than float32."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
