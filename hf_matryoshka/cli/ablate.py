"""`hf-matryoshka ablate`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .command import print_json
from .lists import integers
from .options import JsonFlag


def ablate(
    config: Annotated[Path, typer.Argument(help="YAML file with base, variants or grid, and seeds.")],
    out: Annotated[
        Path | None, typer.Option(help="JSON file of the result; by default in the folder of the runs.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("outputs/ablations"),
    seeds: Annotated[
        Any, typer.Option(parser=integers, metavar="INTEGERS", help="Only these seeds, instead of those of the file.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Train variants of a nested masked language model and print one table; the same call resumes an interrupted one.

    Example: hf-matryoshka ablate configs/ablations.yaml --out benchmarks/results/delta_ablations.json
    """
    from ..recipes.ablate import run_ablation
    from ..recipes.ablation_plan import read_ablation

    result = run_ablation(read_ablation(config), runs, out, seeds)
    if json:
        print_json({"out": result.path, "rows": result.rows})
        return
    print(result.table)
    print(f"Rows: {result.path}")
