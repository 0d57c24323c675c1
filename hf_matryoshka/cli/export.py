"""`hf-matryoshka export`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import JsonFlag, integers, print_json


def export(
    adaptor: Annotated[Path, typer.Argument(help="A trained adaptor, or the folder of its run.")],
    output: Annotated[Path, typer.Argument(help="Folder that gets one repo a level and full/.")],
    base_model: Annotated[
        str | None,
        typer.Option(help="Model whose embeddings it adapts; by default the one it was trained on."),
    ] = None,
    vectors_only: Annotated[
        bool, typer.Option(help="Export the adaptor alone, for embeddings that come from an API.")
    ] = False,
    dims: Annotated[Any, typer.Option(parser=integers, metavar="INTEGERS", help="Only these widths.")] = None,
    curve: Annotated[list[Path] | None, typer.Option(help="Measured curve (JSON) for the cards; repeatable.")] = None,
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
    json: JsonFlag = False,
) -> None:
    """Write one self-contained repo a level, stock wherever exact, each loaded back and compared.

    Example: hf-matryoshka export runs/scifact outputs/scifact
    """
    from ..data.base_models import load_base_model
    from ..evaluation.curve import Curve
    from ..hub.cards import CardDetails
    from ..hub.export_family import export_family
    from ..recipes.evaluate import load_adaptor

    curves = [Curve.from_json(path) for path in curve or []]
    model = load_adaptor(adaptor)
    name = base_model or model.config.base_model
    if name is None and not vectors_only:
        raise ValueError(
            f"{adaptor} does not say which model made its embeddings; give --base-model, or --vectors-only to export "
            "the adaptor alone"
        )
    # A path means nothing to the reader of a card.
    hub_id = base_model if base_model and not Path(base_model).exists() else None
    family = export_family(
        model,
        output,
        base_model=None if vectors_only else load_base_model(name),
        levels=None if dims is None else [f"d{dim}" for dim in dims],
        card=CardDetails(base_model=hub_id, license=license, curves=curves, plot=plot),
        format=format,
        shard_by_level=shard_by_level,
        onnx=onnx,
        overwrite=overwrite,
    )
    if json:
        print_json(
            {
                name: {"folder": repo.folder, "form": repo.form, "max_difference": repo.max_difference}
                for name, repo in family.repos.items()
            }
        )
        return
    for name, repo in family.repos.items():
        print(f"{name:>6}  {repo.form.replace('_', ' '):<12}  max difference {repo.max_difference:.1e}  {repo.folder}")
