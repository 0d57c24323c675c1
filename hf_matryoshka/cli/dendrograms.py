"""`hf-matryoshka dendrograms`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .command import print_json
from .lists import integers
from .options import JsonFlag


def dendrograms(
    model: Annotated[Path, typer.Argument(help="A trained decoder, or the folder of its run.")],
    output: Annotated[Path, typer.Argument(help="PNG file to write.")],
    widths: Annotated[
        Any, typer.Option(parser=integers, metavar="INTEGERS", help="Prefix lengths; by default the levels' widths.")
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(help="Tokens to show, with spaces between; by default the first 128.")
    ] = None,
    clusters: Annotated[int, typer.Option(help="How many clusters of each tree have a colour of their own.")] = 4,
    linkage: Annotated[
        str, typer.Option(help="How clusters are joined: average, complete, single, ward or weighted.")
    ] = "ward",
    centre: Annotated[bool, typer.Option(help="Take the mean of the embeddings away first.")] = True,
    json: JsonFlag = False,
) -> None:
    """Draw the tree of the token embeddings at each prefix length.

    Example: hf-matryoshka dendrograms runs/gpt trees.png --widths 4,8,128 --clusters 4
    """
    from ..evaluation.dendrograms import plot_dendrograms
    from ..hub.trained_folder import load_trained_model

    found = load_trained_model(model)
    if found is None or found.tokenizer is None:
        raise ValueError(f"{model} holds no decoder with a tokenizer; give one that hf-matryoshka train gpt trained")
    options = {"widths": widths, "tokens": tokens.split() if tokens else None, "clusters": clusters}
    path = plot_dendrograms(found.model, found.tokenizer, output, **options, method=linkage, centre=centre)
    if json:
        print_json({"picture": path})
        return
    print(path)
