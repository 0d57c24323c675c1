"""`hf-matryoshka evaluate`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .command import print_json
from .lists import integers
from .options import JsonFlag


def evaluate(
    model: Annotated[
        str, typer.Argument(help="An exported repo, a trained adaptor or funnel, or any embedding model.")
    ],
    beir: Annotated[list[Path] | None, typer.Option(help="Retrieval data in BEIR format; may be repeated.")] = None,
    sts: Annotated[
        Path | None, typer.Option(help="Folder with STS pairs as CSV (sentence1, sentence2, score).")
    ] = None,
    classification: Annotated[
        Path | None, typer.Option(help="Folder with train.csv and test.csv (text, label).")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Name of an MTEB task (needs its data); repeatable.")] = None,
    base_model: Annotated[
        str | None, typer.Option(help="Base model of an adaptor or a funnel; by default the one it was trained on.")
    ] = None,
    dims: Annotated[Any, typer.Option(parser=integers, metavar="INTEGERS", help="Only these widths.")] = None,
    level: Annotated[
        str | None, typer.Option(help="Level of a nested encoder that encodes, such as w0.5; by default the largest.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of the data.")] = None,
    baselines: Annotated[bool, typer.Option(help="Score the baselines at the same widths.")] = True,
    num_vectors: Annotated[int | None, typer.Option(min=1, help="Size of an index, for its memory.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for curves (JSON), plots and rows.")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Run the code of the model's repo.")] = False,
    json: JsonFlag = False,
) -> None:
    """Score every level of a model through MTEB, each text encoded once, beside the baselines.

    Example: hf-matryoshka evaluate outputs/quickstart/full --trust-remote-code --beir path/to/scifact
    """
    if not (beir or sts or classification or task):
        raise ValueError("name what to evaluate on: --beir, --sts, --classification or --task")
    from ..recipes.cpu_memory import keep_freed_memory
    from ..recipes.evaluate import evaluate_model, write_evaluation

    keep_freed_memory()
    curves = evaluate_model(
        model,
        beir=beir or [],
        sts=sts,
        classification=classification,
        tasks=task or [],
        base_model=base_model,
        dims=dims,
        split=split,
        baselines=baselines,
        num_vectors=num_vectors,
        trust_remote_code=trust_remote_code,
        encoder_level=level,
    )
    if output is not None:
        write_evaluation(curves, output)
    if json:
        print_json({name: curve.rows() for name, curve in curves.items()})
        return
    from ..evaluation.table import format_table

    for name, curve in curves.items():
        print(f"\n{name}\n{format_table([curve])}")
        print(f"AUTC {curve.autc():.4f}; levels worse than a smaller one: {len(curve.violations())}")
    if output is not None:
        print(f"\nCurves and plots: {output}")
