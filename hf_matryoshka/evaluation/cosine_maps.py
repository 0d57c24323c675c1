"""Pictures of how alike token embeddings are at each prefix length."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.files import write_beside
from .shown_tokens import shown_tokens


@torch.no_grad()
def prefix_cosines(table: torch.Tensor, width: int) -> torch.Tensor:
    """Cosine of each pair of rows over their leading columns, each prefix normalised on its own.

    Args:
        table (`torch.Tensor` of shape `(tokens, columns)`): Embeddings.
        width (`int`): How many leading columns.

    Returns:
        `torch.Tensor` of shape `(tokens, tokens)`.

    Raises:
        ValueError: If there are not so many columns.
    """
    if not 1 <= width <= table.shape[1]:
        raise ValueError(f"width {width} is not between 1 and the {table.shape[1]} columns of the embeddings")
    rows = F.normalize(table[:, :width].float(), dim=-1)
    return rows @ rows.T


def plot_cosine_maps(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    path: str | os.PathLike,
    *,
    widths: Sequence[int] | None = None,
    tokens: Sequence[str] | None = None,
    dpi: int = 150,
) -> Path:
    """Cosine maps of the token embeddings, one for each prefix length.

    Args:
        model (`PreTrainedModel`): A [`MatryoshkaGPTForCausalLM`], or any model with token embeddings.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        path (`str` or `os.PathLike`): PNG file to write.
        widths (`Sequence[int]`, *optional*): Prefix lengths; by default the widths of the levels.
        tokens (`Sequence[str]`, *optional*): Tokens, in the order of the picture; by default the first 128 of the
            vocabulary that are no special ones.
        dpi (`int`, *optional*, defaults to 150): Resolution.

    Returns:
        `Path`: The file.

    Raises:
        ValueError: If a token is not in the vocabulary, or a width is larger than the embeddings.
    """
    shown = shown_tokens(model, tokenizer, widths, tokens)
    names = shown.names
    maps = [prefix_cosines(shown.rows, width) for width in shown.widths]
    # Objects only, never pyplot: plotting in a server or a test leaves no global state behind.
    side = max(3.0, 0.11 * len(names))
    figure = Figure(figsize=(side * len(maps) + 1, side + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    image = None
    for number, (width, found) in enumerate(zip(shown.widths, maps, strict=True)):
        axes = figure.add_subplot(1, len(maps), number + 1)
        image = axes.imshow(found.numpy(), vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
        axes.set_title(f"first {width} dimensions")
        axes.set_xticks(range(len(names)), names, fontsize=5, rotation=90)
        axes.set_yticks(range(len(names)), names, fontsize=5)
    assert image is not None  # there is at least one width
    figure.colorbar(image, ax=figure.axes, label="cosine", shrink=0.8)
    path = Path(path)
    with write_beside(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
    return path
