"""The command tree. Each command imports what it needs when it runs, so that `--help` is quick."""

from collections.abc import Callable

import typer

from . import (
    ablate,
    bench,
    certify,
    combine,
    completion,
    doctor,
    embed,
    evaluate,
    export,
    family,
    frontier,
    hub,
    optimize,
    pack,
    pictures,
    push,
    quickstart,
    select,
    space,
    train,
)
from .command import Command


app = typer.Typer(
    name="hf-matryoshka",
    help="Train one Matryoshka model, ship many sizes of it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    quickstart.quickstart,
    ablate.ablate,
    certify.certify,
    combine.combine,
    completion.completion,
    pictures.cosine_maps,
    pictures.dendrograms,
    doctor.doctor,
    embed.embed,
    evaluate.evaluate,
    export.export,
    combine.fold_glue,
    frontier.frontier,
    optimize.optimize,
    pack.pack,
    push.push,
    select.select,
    space.space,
):
    app.command(cls=export.BudgetsCommand if command is export.export else Command)(command)

groups: list[tuple[str, str, list[Callable[..., None]]]] = [
    ("family", "Look at a family, on disk or on the Hub.", [family.show]),
    ("hub", "Rehearse a release on a hub of your own.", [hub.serve]),
    ("bench", "Measure time and memory on this machine.", [bench.gpt, bench.mamba]),
]
for name, text, commands in groups:
    group = typer.Typer(help=text, no_args_is_help=True)
    for member in commands:
        group.command(cls=Command)(member)
    app.add_typer(group, name=name)

training = typer.Typer(help="Train a nested model.", no_args_is_help=True)
train.add_training_commands(training)
app.add_typer(training, name="train")


@app.callback()
def root() -> None:
    """Train one Matryoshka model, ship many sizes of it.

    Start with: hf-matryoshka quickstart
    """
