"""Running an ablation: every variant with every seed, and one table."""

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from tqdm.auto import tqdm

from ..data.files import ensure_writable_folder
from ..evaluation.curve import Curve
from ..evaluation.report import write_report
from ..evaluation.seed_interval import seed_interval
from ..evaluation.table import format_rows
from .ablation_data import pack_once
from .ablation_plan import Ablation, Variant
from .run_folder import CURVE_FILE, is_finished, load_report
from .train_delta import train_delta


COST = "flops_per_token"
# Values of one run as they are called in the rows, in the order of the table.
SUMMARIES = ("autc", "violations", "seconds")


@dataclass
class AblationResult:
    """What an ablation found.

    Args:
        rows (`list[dict]`): Rows in the format of benchmarks: of the metric `nll` one a variant, level and seed; of
            `autc`, `violations` and `seconds` one a variant and seed; of `nll_minus_<first>` and `autc_minus_<first>`
            the paired difference to the first variant, with its 95% t-interval over seeds.
        table (`str`): The same as a text.
        path (`Path`): The JSON file with the rows.
    """

    rows: list[dict[str, Any]]
    table: str
    path: Path


def run_ablation(
    ablation: Ablation,
    folder: str | Path,
    out: str | Path | None = None,
    seeds: Sequence[int] | None = None,
    progress: bool = True,
) -> AblationResult:
    """Trains every variant with every seed by [`train_delta`] and compares them on held-out rows.

    Every run has a folder of its own, and an interrupted call goes on. Runs are named by their settings, so that those
    of another ablation are never mixed with these, and equal ones are taken. Texts are packed once, and every run is
    scored on its held-out rows with the same masks. Several processes may take different seeds at once; a last call
    with all of them then finds all runs done.

    Args:
        ablation ([`Ablation`]): As [`read_ablation`] gives it.
        folder (`str` or `Path`): Folder of the runs.
        out (`str` or `Path`, *optional*): JSON file of the result; by default `<name>.json` in `folder`.
        seeds (`Sequence[int]`, *optional*): Run and compare only these; those of the ablation by default.
        progress (`bool`, *optional*, defaults to `True`): Whether to show progress bars; for those of the trainings
            see `disable_tqdm`.

    Returns:
        [`AblationResult`].

    Raises:
        ValueError: If a variant cannot be trained; those before it are kept.
        OSError: If something cannot be read, or a folder cannot be written.
    """
    folder, seeds = ensure_writable_folder(folder), list(ablation.seeds if seeds is None else seeds)
    out = Path(out) if out else folder / f"{ablation.name}.json"
    ensure_writable_folder(out.parent)
    found: dict[str, dict[int, dict[str, Any]]] = {variant.name: {} for variant in ablation.variants}
    with tqdm(total=len(seeds) * len(found), desc="Ablation", unit="run", disable=not progress) as bar:
        # A whole seed after the other: what is there when it is interrupted is paired.
        for seed in seeds:
            for variant in ablation.variants:
                bar.set_postfix_str(f"{variant.name}, seed {seed}")
                found[variant.name][seed] = _run(variant, seed, folder, progress)
                bar.update()
    rows = _rows(found)
    variants = {variant.name: variant.changes for variant in ablation.variants}
    path = write_report(out, ablation.name, rows, base=ablation.base, variants=variants)
    return AblationResult(rows, _table(found, rows), path)


def _run(variant: Variant, seed: int, folder: Path, progress: bool) -> dict[str, Any]:
    """The scores of one run, which is trained if it is not there."""
    settings = json.dumps([asdict(variant.recipe), variant.training], sort_keys=True, default=str)
    name = f"{re.sub(r'[^a-zA-Z0-9.=-]+', '-', variant.name)}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"
    (folder / name).mkdir(parents=True, exist_ok=True)
    run = folder / name / f"seed-{seed}"
    with FileLock(folder / name / f"seed-{seed}.lock"):
        if not is_finished(run):
            try:
                recipe = pack_once(variant.recipe, folder / "data", progress)
                train_delta(replace(recipe, seed=seed), run, variant.training)
            except ValueError as error:
                raise ValueError(f"variant {variant.name!r}: {error}") from error
        # Of no more use: many runs would fill the disk.
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
    report = load_report(run)
    curve = Curve.from_json(run / CURVE_FILE)
    return {
        "nll": {point.level: -point.quality for point in curve.points},
        "costs": {point.level: {name: point.cost[name] for name in ("parameters", COST)} for point in curve.points},
        "autc": curve.autc(COST) if len(set(curve.costs(COST))) > 1 else None,
        "violations": len(curve.violations()),
        "pairs": len(curve.comparable_pairs()),
        # The report times the last call; this also holds for a run that was interrupted.
        "seconds": report["tokens"] / max(1, report["tokens_per_second"]),
    }


def _rows(found: dict[str, dict[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    first, rows = next(iter(found)), []
    for system, runs in found.items():
        for seed, run in runs.items():
            for level, nll in run["nll"].items():
                rows.append(_row(system, level, "nll", value=nll, seed=seed) | run["costs"][level])
            rows += [_row(system, "all", name, value=run[name], seed=seed) for name in SUMMARIES]
        if system == first:
            continue
        for level in next(iter(runs.values()))["nll"]:
            pairs = [
                (run["nll"][level], found[first][seed]["nll"][level])
                for seed, run in runs.items()
                if level in found[first][seed]["nll"]
            ]
            if pairs:
                rows.append(_row(system, level, f"nll_minus_{first}", **_paired(pairs)))
        # Areas compare over the same costs only.
        pairs = [
            (run["autc"], found[first][seed]["autc"])
            for seed, run in runs.items()
            if run["autc"] is not None and run["costs"] == found[first][seed]["costs"]
        ]
        if pairs:
            rows.append(_row(system, "all", f"autc_minus_{first}", **_paired(pairs)))
    return rows


def _row(system: str, level: str, metric: str, **values: Any) -> dict[str, Any]:
    empty = {"value": None, "low": None, "high": None, "seeds": 1}
    return {"system": system, "level": level, "split": "validation", "metric": metric, **empty, **values}


def _paired(pairs: Sequence[tuple[float, float]]) -> dict[str, float | int | None]:
    """Mean difference with its 95% t-interval, which one pair has not."""
    return seed_interval([a - b for a, b in pairs])


def _table(found: dict[str, dict[int, dict[str, Any]]], rows: list[dict[str, Any]]) -> str:
    first = next(iter(found))
    metrics = (f"nll_minus_{first}", f"autc_minus_{first}")
    differences = {(row["system"], row["level"]): row for row in rows if row["metric"] in metrics}
    levels = list(dict.fromkeys(level for runs in found.values() for run in runs.values() for level in run["nll"]))

    def cell(system: str, level: str, values: list[float | None]) -> str:
        if not values or None in values:
            return "-"
        text, difference = f"{np.mean(values):.4f}", differences.get((system, level))
        if difference is None:
            return text
        interval = "" if difference["low"] is None else f" [{difference['low']:+.4f}, {difference['high']:+.4f}]"
        return f"{text} ({difference['value']:+.4f}{interval})"

    body = []
    for system, runs in found.items():
        done = list(runs.values())
        cells = [cell(system, level, [run["nll"][level] for run in done if level in run["nll"]]) for level in levels]
        cells.append(cell(system, "all", [run["autc"] for run in done]))
        cells.append(f"{sum(run['violations'] for run in done)}/{sum(run['pairs'] for run in done)}")
        body.append([system, *cells, f"{np.mean([run['seconds'] for run in done]):.0f}"])
    header = ["variant", *(f"NLL {level}" for level in levels), "AUTC", "violations", "seconds"]
    seeds = len(next(iter(found.values())))
    note = f"Means over {seeds} seeds on held-out rows; in brackets the difference to {first!r}, paired by seed"
    return f"{format_rows(header, body)}\n{note}{', with its 95% t-interval' if seeds > 1 else ''}."
