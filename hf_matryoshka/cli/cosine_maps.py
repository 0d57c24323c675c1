"""`hf-matryoshka cosine-maps`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .command import print_json
from .lists import integers
from .options import JsonFlag


def cosine_maps(
    model: Annotated[Path, typer.Argument(help="A trained decoder, or the folder of its run.")],
    output: Annotated[Path, typer.Argument(help="PNG file to write.")],
    widths: Annotated[
        Any, typer.Option(parser=integers, metavar="INTEGERS", help="Prefix lengths; by default the levels' widths.")
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(help="Tokens to show, with spaces between; by default the first 128.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Draw how alike the token embeddings are at each prefix length.

    Example: hf-matryoshka cosine-maps runs/gpt maps.png --widths 4,16,128
    """
    from ..evaluation.cosine_maps import plot_cosine_maps
    from ..hub.trained_folder import load_trained_model

    found = load_trained_model(model)
    if found is None or found.tokenizer is None:
        raise ValueError(f"{model} holds no decoder with a tokenizer; give one that hf-matryoshka train gpt trained")
    named = tokens.split() if tokens else None
    path = plot_cosine_maps(found.model, found.tokenizer, output, widths=widths, tokens=named)
    if json:
        print_json({"picture": path})
        return
    print(path)
