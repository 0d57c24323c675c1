"""`hf-matryoshka cosine-maps` and `hf-matryoshka dendrograms`: pictures of the token embeddings of a decoder."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .command import print_json
from .lists import integers
from .options import JsonFlag


Decoder = Annotated[Path, typer.Argument(help="A trained decoder, or the folder of its run.")]
Picture = Annotated[Path, typer.Argument(help="PNG file to write.")]
Widths = Annotated[
    Any, typer.Option(parser=integers, metavar="INTEGERS", help="Prefix lengths; by default the levels' widths.")
]
Tokens = Annotated[str | None, typer.Option(help="Tokens to show, with spaces between; by default the first 128.")]


def cosine_maps(
    model: Decoder, output: Picture, widths: Widths = None, tokens: Tokens = None, json: JsonFlag = False
) -> None:
    """Draw how alike the token embeddings are at each prefix length.

    Example: hf-matryoshka cosine-maps runs/gpt maps.png --widths 4,16,128
    """
    from ..evaluation.cosine_maps import plot_cosine_maps

    _print(plot_cosine_maps(*_load(model), output, widths=widths, tokens=_named(tokens)), json)


def dendrograms(
    model: Decoder,
    output: Picture,
    widths: Widths = None,
    tokens: Tokens = None,
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

    options = {"widths": widths, "tokens": _named(tokens), "clusters": clusters, "method": linkage, "centre": centre}
    _print(plot_dendrograms(*_load(model), output, **options), json)


def _load(model: Path) -> tuple[Any, Any]:
    """A decoder and its tokenizer."""
    from ..hub.trained_folder import load_trained_model

    found = load_trained_model(model)
    if found is None or found.tokenizer is None:
        raise ValueError(f"{model} holds no decoder with a tokenizer; give one that hf-matryoshka train gpt trained")
    return found.model, found.tokenizer


def _named(tokens: str | None) -> list[str] | None:
    return tokens.split() if tokens else None


def _print(path: Path, json: bool) -> None:
    if json:
        print_json({"picture": path})
    else:
        print(path)
