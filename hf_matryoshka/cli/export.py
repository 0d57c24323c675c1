"""`hf-matryoshka export`."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from .command import Command, print_json
from .lists import integers
from .options import JsonFlag


_FLAGS = ("--budgets", "--budget")
# `0.5:6:6`, or the name of a level such as `w0.5-h6-d6`, `w0.5`, `d64-l3` or `L1.0`.
_BUDGET = re.compile(r"[\d.]+:\d+:\d+|[wm][\d.]+(-h\d+-d\d+)?|d\d+(-l\d+)?|L\d+\.\d+")


class BudgetsCommand(Command):
    """A command whose option `--budgets` takes several values after one flag."""

    lists = dict.fromkeys(_FLAGS, lambda argument: _BUDGET.fullmatch(argument) is not None)


def export(
    model: Annotated[
        Path, typer.Argument(help="A trained model (adaptor, funnel, encoder, decoder), or the folder of its run.")
    ],
    output: Annotated[Path, typer.Argument(help="Folder that gets one repo a level and full/.")],
    budgets: Annotated[
        list[str] | None,
        typer.Option(
            *_FLAGS,
            metavar="W:H:D...",
            help="Only these levels of an encoder: width:heads:layers or a name, several after one flag.",
        ),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(
            help="Model whose embeddings an adaptor or a funnel takes, by default the one it was trained on; of an "
            "encoder, the Hub id that the cards name."
        ),
    ] = None,
    vectors_only: Annotated[
        bool, typer.Option(help="Export an adaptor or a funnel alone, for embeddings that come from an API.")
    ] = False,
    dims: Annotated[
        Any, typer.Option(parser=integers, metavar="INTEGERS", help="Only these widths of an adaptor or a funnel.")
    ] = None,
    curve: Annotated[
        list[Path] | None,
        typer.Option(help="Measured curve (JSON) for the cards; repeatable; by default what the run measured."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Picture (PNG) for the cards.")] = None,
    license: Annotated[str | None, typer.Option(help="License id for the cards.")] = None,
    format: Annotated[
        str, typer.Option(help="auto (the strongest exact form), stock, stock_padded or remote_code.")
    ] = "auto",
    shard_by_level: Annotated[
        bool, typer.Option(help="One shard of weights a level, for progressive download.")
    ] = False,
    onnx: Annotated[bool, typer.Option(help="Write ONNX graphs (float32 and int8) to onnx/ of each repo.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace folders that are no earlier export.")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option(help="Run the code that a sentence encoder brings along.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Write one self-contained repo a level, stock wherever exact, each loaded back and compared.

    Examples: hf-matryoshka export runs/scifact outputs/scifact

    hf-matryoshka export runs/encoder outputs/encoder --budgets 0.5:6:6 0.75:9:9 1.0:12:12
    """
    from ..evaluation.curve import Curve
    from ..hub.cards import CardDetails
    from ..hub.export_family import export_family
    from ..hub.trained_folder import load_trained_model
    from ..recipes.run_folder import CURVE_FILE, OVERLAP_FILE

    measured = [path for path in (model / CURVE_FILE, model / OVERLAP_FILE) if path.is_file()]
    curves = [Curve.from_json(path) for path in curve or measured]
    # A path means nothing to the reader of a card.
    hub_id = base_model if base_model and not Path(base_model).exists() else None
    card = CardDetails(base_model=hub_id, license=license, curves=curves, plot=plot)
    encoder = load_trained_model(model, trust_remote_code)
    if encoder is None:
        if budgets:
            raise ValueError(
                f"{model} holds no encoder or decoder with levels; name the widths of an adaptor or a funnel with "
                "--dims"
            )
        loaded, what = _vector_model(model, base_model, vectors_only, dims)
    else:
        for flag, given in (("--dims", dims), ("--vectors-only", vectors_only)):
            if given:
                raise ValueError(
                    f"{flag} is for adaptors and funnels, but {model} holds another model; name levels with --budgets"
                )
        # With commas as well, as the lists of other commands.
        levels = [encoder.level(part) for budget in budgets for part in budget.split(",")] if budgets else None
        loaded, what = encoder.model, {"tokenizer": encoder.tokenizer, "levels": levels}
        card = replace(card, certificate=encoder.certificate)
    family = export_family(
        loaded,
        output,
        card=card,
        format=format,
        shard_by_level=shard_by_level,
        onnx=onnx,
        overwrite=overwrite,
        **what,
    )
    if json:
        print_json(
            {
                name: {"folder": repo.folder, "form": repo.form, "max_difference": repo.max_difference}
                for name, repo in family.repos.items()
            }
        )
        return
    size = max(6, *(len(name) for name in family.repos))
    for name, repo in family.repos.items():
        form = repo.form.replace("_", " ")
        print(f"{name:>{size}}  {form:<12}  max difference {repo.max_difference:.1e}  {repo.folder}")


def _vector_model(path: Path, base_model: str | None, vectors_only: bool, dims: list[int] | None):
    """The adaptor or funnel of a folder, and what [`export_family`] needs besides."""
    from ..hub.trained_folder import load_vector_model
    from ..recipes.evaluate import load_base_of

    loaded = load_vector_model(path)
    name = base_model or loaded.config.base_model
    if name is None and not vectors_only:
        raise ValueError(
            f"{path} does not say which model made its embeddings; give --base-model, or --vectors-only to export it "
            "alone"
        )
    levels = None if dims is None else [f"d{dim}" for dim in dims]
    return loaded, {
        "base_model": None if vectors_only or name is None else load_base_of(loaded, name),
        "levels": levels,
    }
