"""The command tree. Each command imports what it needs when it runs, so that `--help` is quick."""

import typer

from . import (
    ablate,
    bench,
    certify,
    combine,
    cosine_maps,
    dendrograms,
    embed,
    evaluate,
    export,
    family,
    frontier,
    hub,
    optimize,
    pack,
    push,
    quickstart,
    select,
    train,
)


app = typer.Typer(
    name="hf-matryoshka",
    help="Train one Matryoshka model, ship many sizes of it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(quickstart.quickstart)
app.command()(ablate.ablate)
app.command()(certify.certify)
app.command()(combine.combine)
app.command()(cosine_maps.cosine_maps)
app.command()(dendrograms.dendrograms)
app.command()(embed.embed)
app.command()(evaluate.evaluate)
app.command(cls=export.BudgetsCommand)(export.export)
app.command()(combine.fold_glue)
app.command()(frontier.frontier)
app.command()(optimize.optimize)
app.command()(pack.pack)
app.command()(push.push)
app.command()(select.select)

families = typer.Typer(help="Look at a family, on disk or on the Hub.", no_args_is_help=True)
family.add_family_commands(families)
app.add_typer(families, name="family")

hubs = typer.Typer(help="Rehearse a release on a hub of your own.", no_args_is_help=True)
hubs.command()(hub.serve)
app.add_typer(hubs, name="hub")

benches = typer.Typer(help="Measure time and memory on this machine.", no_args_is_help=True)
benches.command()(bench.gpt)
benches.command()(bench.mamba)

app.add_typer(benches, name="bench")

training = typer.Typer(help="Train a nested model.", no_args_is_help=True)
train.add_training_commands(training)
app.add_typer(training, name="train")


@app.callback()
def root() -> None:
    """Train one Matryoshka model, ship many sizes of it.

    Start with: hf-matryoshka quickstart
    """
