"""`hf-matryoshka optimize`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .command import print_json
from .options import JsonFlag


def optimize(
    funnel: Annotated[Path, typer.Option(help="A funnel, or the folder of its run.")],
    objective: Annotated[
        str,
        typer.Option(metavar="MODULE:FUNCTION", help="Gives a number for a text; without --corpus for an embedding."),
    ],
    output: Annotated[Path, typer.Option(help="Folder for the run; the same call resumes it.")],
    maximize: Annotated[bool | None, typer.Option("--maximize/--minimize", help="What is better.")] = None,
    trials: Annotated[int, typer.Option(help="How often the objective is asked.")] = 225,
    optimizer: Annotated[
        str, typer.Option(help="staged, gp, linear, turbo, cmaes, random or pool (of the corpus).")
    ] = "staged",
    mode: Annotated[
        str | None, typer.Option(help="Stages of staged: nested (the prefix grows), frozen or full.")
    ] = None,
    surrogate: Annotated[
        str | None,
        typer.Option(
            help="Model of staged: embeddings (default), rbf, matern, saas, linear, or texts (default with --corpus)."
        ),
    ] = None,
    initial: Annotated[int | None, typer.Option(help="Trials before the first model (10 by default).")] = None,
    stage_patience: Annotated[
        int | None, typer.Option(help="End a stage after so many trials without a better value.")
    ] = None,
    noisy: Annotated[bool, typer.Option("--noisy", help="The objective's values have noise.")] = False,
    q: Annotated[int | None, typer.Option("--q", help="Candidates at once; by default one a worker.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that evaluate; 0 evaluates in this one.")] = 0,
    corpus: Annotated[
        Path | None, typer.Option(help="File of texts: a candidate is the text of the nearest embedding.")
    ] = None,
    text_field: Annotated[str, typer.Option(help="Field of the texts.")] = "text",
    base_model: Annotated[
        str | None, typer.Option(help="Model that embeds the texts; by default that of the funnel.")
    ] = None,
    known: Annotated[
        Path | None,
        typer.Option(help="File of texts with known scores (.jsonl, .csv, .tsv), which the model learns from first."),
    ] = None,
    score_field: Annotated[str, typer.Option(help="Field of the known scores.")] = "score",
    bound: Annotated[float, typer.Option(help="Half the side of the searched box, in standard deviations.")] = 3.0,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete another run in the output folder.")] = False,
    push: Annotated[
        str | None, typer.Option(metavar="USER/NAME", help="Bring the run to the Hub as a data set.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Find the text, or the embedding, for which an objective is best, in the latent of a funnel.

    The objective is a function of a module that Python finds from the current directory.

    Example: hf-matryoshka optimize --funnel runs/funnel --objective scores:relevance --maximize --corpus
    texts.jsonl.gz --output runs/relevance
    """
    from ..evaluation.table import format_rows
    from ..hub.push import check_push
    from ..hub.push_run import push_run
    from ..lsbo.report import TRACE_FILE
    from ..recipes.optimize import optimize_funnel

    if maximize is None:
        raise ValueError("say which values are better: --maximize or --minimize")
    if push is not None:
        push = check_push(push)
    options: dict[str, Any] = {
        "mode": mode,
        "surrogate": surrogate,
        "initial": initial,
        "stage_patience": stage_patience,
        "noisy": noisy or None,
    }
    run, found = optimize_funnel(
        funnel,
        objective,
        output,
        maximize=maximize,
        optimizer=optimizer,
        trials=trials,
        q=q,
        workers=workers,
        seed=seed,
        bound=bound,
        corpus=corpus,
        text_field=text_field,
        base_model=base_model,
        known=known,
        score_field=score_field,
        overwrite=overwrite,
        **{name: value for name, value in options.items() if value is not None},
    )
    pushed = None if push is None else push_run(output, push)
    if json:
        print_json({"output": output, "repo_id": pushed and pushed.repo_id, **found})
        return
    names = ("stage", "coordinates", "trials", "best", "best_so_far", "failed", "duplicates", "seconds")
    print(format_rows(names, [[_shown(row[name]) for name in names] for row in found["stages"]]))
    fit = found["diagnostics"]["leave_one_out"]
    if fit is not None:
        print(f"Model: error {fit['rmse']:.3g} of values that spread by {fit['spread']:.3g} (leave-one-out)")
    assert run.best is not None  # a run without a value has no report
    print(f"Best: {run.best.value:.6g} in trial {run.best.id + 1} of {len(run.trials)}")
    if run.best.text is not None:
        print(run.best.text)
    print(f"Trace: {output / TRACE_FILE}")
    if pushed is not None:
        print(f"Data set: {pushed.repo_id}, {'up to date' if pushed.commit is None else 'pushed'}")


def _shown(value: float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
