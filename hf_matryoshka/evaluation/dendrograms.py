"""Pictures of the trees of token embeddings at each prefix length."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import dendrogram, fcluster
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.files import write_beside
from .shown_tokens import shown_tokens
from .token_tree import prefix_linkage


# Of clusters; what joins them is grey.
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2")
ABOVE = "#999999"


def plot_dendrograms(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    path: str | os.PathLike,
    *,
    widths: Sequence[int] | None = None,
    tokens: Sequence[str] | None = None,
    clusters: int = 4,
    method: str = "ward",
    centre: bool = True,
    dpi: int = 100,
) -> Path:
    """Trees of the token embeddings, one below the other for each prefix length, each of that prefix alone.

    Args:
        model (`PreTrainedModel`): A [`MatryoshkaGPTForCausalLM`], or any model with token embeddings.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        path (`str` or `os.PathLike`): PNG file to write.
        widths (`Sequence[int]`, *optional*): Prefix lengths; by default the widths of the levels.
        tokens (`Sequence[str]`, *optional*): At least two tokens; by default the first 128 of the vocabulary that are
            no special ones.
        clusters (`int`, *optional*, defaults to 4): How many clusters of each tree have a colour of their own.
        method, centre (`str`, `bool`, *optional*, defaults to `"ward"` and `True`): As in [`prefix_linkage`].
        dpi (`int`, *optional*, defaults to 100): Resolution.

    Returns:
        `Path`: The file.

    Raises:
        ValueError: If a token is not in the vocabulary, a width is larger than the embeddings, there are fewer than
            two tokens or not so many clusters, or there is no such method.
    """
    shown = shown_tokens(model, tokenizer, widths, tokens)
    count = len(shown.names)
    if count < 2 or not 1 <= clusters <= count:
        raise ValueError(
            f"a tree needs at least two tokens, and from 1 cluster up to as many as tokens, but there are {count} "
            f"tokens and {clusters} clusters"
        )
    trees = [prefix_linkage(shown.rows, width, method, centre) for width in shown.widths]
    # Objects only, never pyplot: plotting in a server or a test leaves no global state behind.
    figure = Figure(figsize=(max(4.0, 0.14 * count), 2.2 * len(trees)), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (width, tree) in enumerate(zip(shown.widths, trees, strict=True)):
        axes = figure.add_subplot(len(trees), 1, number + 1)
        lines, colours, order = coloured_tree(tree, clusters)
        axes.add_collection(LineCollection(lines, colors=colours, linewidths=1))
        axes.set_xlim(0, 10 * count)
        axes.set_ylim(0, 1.05 * tree[-1, 2])
        axes.set_xticks(np.arange(5, 10 * count, 10), [shown.names[leaf] for leaf in order], fontsize=7)
        axes.tick_params("x", length=0, rotation=90 if max(map(len, shown.names)) > 2 else 0)
        axes.set_ylabel("height")
        axes.set_title(f"first {width} dimensions", fontsize=9)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    path = Path(path)
    with write_beside(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
    return path


def coloured_tree(tree: np.ndarray, clusters: int) -> tuple[list[list[tuple[float, float]]], list[str], list[int]]:
    """What to draw of a tree.

    Args:
        tree (`np.ndarray`): As `scipy.cluster.hierarchy.linkage` gives it.
        clusters (`int`): How many clusters to colour.

    Returns:
        `tuple`: Of each join the four corners of its bracket (leaves stand at 5, 15, ...) and its colour, and the
        leaves from left to right.
    """
    labels = fcluster(tree, clusters, "maxclust") - 1
    # Cluster of each node of the tree, -1 where it holds several.
    owners = list(labels)
    for left, right, *_ in tree:
        one, other = owners[int(left)], owners[int(right)]
        owners.append(one if one == other else -1)

    def colour(node: int) -> str:
        return ABOVE if owners[node] < 0 else COLOURS[owners[node] % len(COLOURS)]

    drawn = dendrogram(tree, no_plot=True, link_color_func=colour)
    lines = [list(zip(xs, ys, strict=True)) for xs, ys in zip(drawn["icoord"], drawn["dcoord"], strict=True)]
    return lines, drawn["color_list"], drawn["leaves"]
