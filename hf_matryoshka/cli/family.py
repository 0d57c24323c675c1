"""`hf-matryoshka family`."""

from dataclasses import asdict
from typing import Annotated

import typer

from .command import print_json
from .options import JsonFlag


def show(
    family: Annotated[str, typer.Argument(help="A folder or a Hub id: a family, or any repo of one.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the weights on disk with their sha256 in the manifest.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Show levels, cost, quality and repos of a family; the weights are not downloaded.

    Example: hf-matryoshka family show outputs/quickstart
    """
    from ..evaluation.table import format_rows
    from ..hub.card_tables import BUDGET_COLUMNS, budget_cells, cost_columns
    from ..hub.family import load_family

    found = load_family(family, revision=revision)
    if verify:
        found.verify()
    if json:
        print_json(asdict(found.manifest))
        return
    manifest = found.manifest
    scores = list(dict.fromkeys((s["metric"], s["split"]) for level in manifest.levels for s in level.quality))
    costs = cost_columns(manifest)
    rows = []
    for level in manifest.levels:
        quality = {(s["metric"], s["split"]): s for s in level.quality}
        repo = found.levels.get(level.name)
        rows.append(
            [
                level.name,
                *budget_cells(level),
                *(f"{level.cost[key]:,.0f}" if key in level.cost else "" for key in costs),
                *(_score(quality.get(key)) for key in scores),
                repo.form.replace("_", " ") if repo else "",
                repo.location if repo else "",
            ]
        )
    budgets = [] if manifest.levels[0].budget is None else BUDGET_COLUMNS
    header = ["level", *budgets, *(name.replace("_", " ") for name in costs)]
    print(format_rows([*header, *(f"{metric} ({split})" for metric, split in scores), "form", "repo"], rows))
    print(f"\nAll levels: {found.repos['full'].location if 'full' in found.repos else 'no repo'}")
    if manifest.matryoshka_dims:
        print(f"Output widths: {', '.join(map(str, manifest.matryoshka_dims))}")
    if manifest.base_model:
        print(f"Base model: {manifest.base_model}")


def _score(score: dict | None) -> str:
    if score is None:
        return ""
    interval = "" if score["low"] is None else f" [{score['low']:.3f}, {score['high']:.3f}]"
    return f"{score['value']:.3f}{interval}"
