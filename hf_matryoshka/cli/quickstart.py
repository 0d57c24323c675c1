"""`hf-matryoshka quickstart`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .command import print_json
from .lists import integers
from .options import JsonFlag
from .push import print_push


def quickstart(
    model: Annotated[
        str, typer.Option(help="Base model: a folder or a Hub id.")
    ] = "sentence-transformers/all-MiniLM-L6-v2",
    beir: Annotated[
        Path | None,
        typer.Option(help="Data set in BEIR format; by default the documentation of the installed Python packages."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the family and its results.")] = Path("outputs/quickstart"),
    dims: Annotated[
        Any,
        typer.Option(parser=integers, metavar="INTEGERS", help="Widths to train (default: log-spaced, 16 to full)."),
    ] = None,
    max_documents: Annotated[int, typer.Option(min=50, help="Documents of the default corpus.")] = 4000,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    push: Annotated[str | None, typer.Option(help="Hub id, user/name, that the family is pushed to.")] = None,
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Who sees the pushed repos; by default the setting of the account."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """An embedding model in, a measured family of small models out.

    Encodes a corpus, trains an adaptor, scores every level beside the baselines, exports one repo a level and loads
    each back. Needs no network when the base model is here.

    Example: hf-matryoshka quickstart --beir path/to/scifact
    """
    from ..evaluation.table import format_table
    from ..recipes.adaptor_recipe import AdaptorRecipe
    from ..recipes.quickstart import quickstart as run

    made = run(
        output,
        base_model=model,
        beir=beir,
        max_documents=max_documents,
        recipe=AdaptorRecipe.quick(matryoshka_dims=dims, seed=seed),
        push=push,
        private=private,
        say=lambda line: print(line, file=sys.stderr),
    )
    if json:
        print_json(
            {
                "folder": output,
                "levels": {name: level.folder for name, level in made.family.levels.items()},
                "full": made.family.full.folder,
                "results": made.results,
                "pushed": made.push.repo_ids if made.push else [],
                "collection": made.push.collection if made.push else None,
                "curves": {split: curve.rows() for split, curve in made.curves.items()},
            }
        )
        return
    for curve in made.curves.values():
        print(f"\n{format_table([curve], intervals=False)}")
    levels = list(made.family.levels.values())
    small = levels[min(2, len(levels) - 1)]
    print(f"\nFamily:  {output}/ ({', '.join(made.family.levels)}, full)")
    print(f"Results: {made.results}\nPlot:    {made.plot}")
    if made.push is not None:
        print_push(made.push)
    print("\nNext:")
    if made.push is not None:
        print(f"  hf-matryoshka family show {made.push.repo_ids[-1]}")
    print(f"  hf-matryoshka select {output}/curve.json --min-quality 0.95")
    print(f"  hf-matryoshka evaluate {small.folder} --beir <folder>")
    print(
        f'  python -c "from sentence_transformers import SentenceTransformer as S; '
        f"print(S('{small.folder}').encode(['hello']).shape)\""
    )
