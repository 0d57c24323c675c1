"""Time and memory of the Mamba encoder against the length of a text, beside rivals of equal size."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..modeling import MatryoshkaMambaConfig
from .speed_rivals import ONEDNN, build_system, speed_systems


LENGTHS = (128, 256, 512, 768, 1024, 2048, 4096, 8192, 32768)
MEMORY_LENGTHS = (8192, 32768)
LONGEST_QUADRATIC = 8192


def measure_mamba_speed(
    config: MatryoshkaMambaConfig,
    lengths: Sequence[int] = LENGTHS,
    memory: Sequence[int] = MEMORY_LENGTHS,
    longest_quadratic: int = LONGEST_QUADRATIC,
    rounds: int = 5,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """One text a pass, all its tokens, random weights: what is measured does not depend on them.

    Args:
        config ([`MatryoshkaMambaConfig`]): The encoder; [`speed_systems`] are measured.
        lengths (`Sequence[int]`): Tokens of the texts that are timed.
        memory (`Sequence[int]`): Tokens of the texts whose memory is measured, on Linux.
        longest_quadratic (`int`, *optional*, defaults to 8192): Longest text of systems whose time is not linear.
        rounds (`int`, *optional*, defaults to 5): Timed rounds after one that warms up, in which the systems take
            turns; a third of them beyond `longest_quadratic`.
        progress (`bool`, *optional*, defaults to `True`): Whether to show progress.

    Returns:
        `list[dict]`: Rows of the metrics `seconds`, the median of the rounds, with `over_ours`, the median ratio to
        the float32 encoder at full width, with the same kind of linear layers, in the same round; `exponent`, the
        slope of log seconds against log tokens from 512 on; `extra_mb`, by how many megabytes (10^6 bytes) the
        resident memory of a fresh process peaks above what it has with the model loaded and warmed up by a text of 16
        tokens.

    Raises:
        ValueError: If a number is not positive.
    """
    for name, values in (("lengths", lengths), ("memory", memory), ("rounds", [rounds])):
        if any(value < 1 for value in values) or (name == "lengths" and not values):
            raise ValueError(f"{name} must be positive, but are {list(values)}")
    systems = {
        name: [length for length in sorted(lengths) if linear or length <= longest_quadratic]
        for name, linear in speed_systems(config).items()
    }
    full = f"ours {config.levels[-1]}"
    times = _times(config, systems, rounds, longest_quadratic, progress)
    rows = []
    for (name, length), found in times.items():
        reference = f"{full}{ONEDNN}" if name.endswith(ONEDNN) else full
        ratios = [one / ours for one, ours in zip(found, times[reference, length], strict=True)]
        further = {"low": min(found), "high": max(found), "rounds": len(found), "over_ours": statistics.median(ratios)}
        rows.append(_row(name, config, str(length), "seconds", statistics.median(found), **further))
    for name, own in systems.items():
        points = [(length, statistics.median(times[name, length])) for length in own if length >= 512]
        if len(points) > 2:
            tokens, seconds = (np.log(part) for part in zip(*points, strict=True))
            slope = float(np.polyfit(tokens, seconds, 1)[0])
            rows.append(_row(name, config, f"{points[0][0]}-{points[-1][0]}", "exponent", slope))
    linear = speed_systems(config)
    wanted = [
        (name, length)
        for length in memory
        for name in linear
        if (" " not in name or name.removesuffix(ONEDNN) == full) and (linear[name] or length <= longest_quadratic)
    ]
    for name, length in tqdm(wanted, desc="Memory", disable=not progress):
        rows.append(_row(name, config, str(length), "extra_mb", peak_memory(name, config, length)))
    return rows


def peak_memory(name: str, config: MatryoshkaMambaConfig, length: int) -> float:
    """By how many megabytes the memory of a fresh process rises while a system encodes a text.

    Raises:
        RuntimeError: If that process fails, for example for want of memory.
    """
    request = {"name": name, "config": config.to_dict(), "length": length, "threads": torch.get_num_threads()}
    code = f"from {__name__} import _answer; _answer()"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, env=_environment())
    if run.returncode:
        raise RuntimeError(f"measuring the memory of {name} at {length} tokens failed: {run.stderr.strip()[-500:]}")
    return float(run.stdout.splitlines()[-1])


def _environment() -> dict[str, str]:
    """That of this process, which may have found the package where it stands."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@torch.inference_mode()
def _times(
    config: MatryoshkaMambaConfig, systems: dict[str, list[int]], rounds: int, longest_quadratic: int, progress: bool
) -> dict[tuple[str, int], list[float]]:
    lengths = sorted({length for own in systems.values() for length in own})
    runs = {name: build_system(name, config, own[-1])[1] for name, own in systems.items() if own}
    times: dict[tuple[str, int], list[float]] = {}
    with tqdm(total=sum(map(len, systems.values())), desc="Time", disable=not progress) as bar:
        for length in lengths:
            ids = _tokens(config, length)
            own = [name for name in runs if length in systems[name]]
            for number in range(-1, rounds if length <= longest_quadratic else max(1, rounds // 3)):
                for name in own:
                    began = time.perf_counter()
                    runs[name](ids)
                    if number >= 0:
                        times.setdefault((name, length), []).append(time.perf_counter() - began)
            bar.update(len(own))
    return times


def _tokens(config: MatryoshkaMambaConfig, length: int) -> torch.Tensor:
    return torch.randint(1, config.vocab_size, (1, length), generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def _answer() -> None:
    """What the fresh process does: reads a request, prints megabytes."""
    request = json.loads(sys.stdin.read())
    torch.set_num_threads(request["threads"])
    config, length = MatryoshkaMambaConfig.from_dict(request["config"]), request["length"]
    _, run = build_system(request["name"], config, max(length, 16))
    run(_tokens(config, 16))
    before = _resident("VmRSS")
    # The peak so far would be that of building the model.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    run(_tokens(config, length))
    print((_resident("VmHWM") - before) / 1e6)


def _resident(field: str) -> int:
    """Bytes of memory of this process, as Linux says (now `VmRSS`, at the peak `VmHWM`)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def _row(
    name: str, config: MatryoshkaMambaConfig, split: str, metric: str, value: float, **fields: Any
) -> dict[str, Any]:
    system, _, level = name.removesuffix(ONEDNN).partition(" ")
    shared = {"level": level.removesuffix("-bf16") or config.levels[-1], "low": None, "high": None, "seeds": 1}
    shared["precision"] = "bf16" if level.endswith("-bf16") else "fp32"
    shared["linear_layers"] = "onednn" if name.endswith(ONEDNN) else "torch"
    return {"system": system, "split": split, "metric": metric, "value": value, **shared, **fields}
