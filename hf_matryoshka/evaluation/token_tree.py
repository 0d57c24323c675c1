"""Clusters of token embeddings by prefix length, finer ones inside coarser ones."""

from collections.abc import Mapping

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform
from sklearn.cluster import DBSCAN, HDBSCAN


LINKAGES = ("average", "complete", "single", "ward", "weighted")


def prefix_distances(table: torch.Tensor, width: int, centre: bool = False) -> np.ndarray:
    """Cosine distances of each pair of rows over their leading columns, condensed as `scipy` takes them.

    Args:
        table (`torch.Tensor` of shape `(tokens, columns)`): Embeddings.
        width (`int`): How many leading columns.
        centre (`bool`, *optional*, defaults to `False`): Whether to take the mean of the rows away first: what all
            rows of a head share changes no prediction.

    Raises:
        ValueError: If there are not so many columns.
    """
    if not 1 <= width <= table.shape[1]:
        raise ValueError(f"width {width} is not between 1 and the {table.shape[1]} columns of the embeddings")
    rows = table[:, :width].double().numpy()
    if centre:
        rows = rows - rows.mean(0)
    # A row of zeros has no direction: as far from all as one at a right angle.
    return np.nan_to_num(pdist(rows, "cosine"), nan=1.0).clip(min=0)


def prefix_linkage(table: torch.Tensor, width: int, method: str = "average", centre: bool = False) -> np.ndarray:
    """The agglomerative tree of [`prefix_distances`], as `scipy.cluster.hierarchy.linkage` gives it.

    `"ward"` needs squared Euclidean distances: those of the rows with length 1, twice the cosine distances.

    Raises:
        ValueError: If there is no such method.
    """
    return _join(prefix_distances(table, width, centre), method)


def nested_clusters(
    table: torch.Tensor,
    counts: Mapping[int, int],
    method: str = "average",
    tree_width: int | None = None,
    centre: bool = False,
) -> dict[int, np.ndarray]:
    """One tree over all prefix lengths: clusters of a longer prefix lie inside those of a shorter one.

    The shortest prefix is cut into its number of clusters; of each longer one the clusters so far are cut, by the tree
    of the longer prefix inside each of them, one by one where that tree joins last, until there are as many as asked.

    Args:
        table (`torch.Tensor` of shape `(tokens, columns)`): Embeddings.
        counts (`Mapping[int, int]`): Clusters by prefix length; at least as many for a longer prefix.
        method (`str`, *optional*, defaults to `"average"`): How clusters are joined, as in [`prefix_linkage`].
        tree_width (`int`, *optional*): A prefix whose tree alone is cut for all lengths; by default each its own.
        centre (`bool`, *optional*, defaults to `False`): As in [`prefix_distances`].

    Returns:
        `dict[int, np.ndarray]`: For each prefix length the number of the cluster of each token.

    Raises:
        ValueError: If the numbers decrease, are below 1 or above the number of tokens, or there is no such method.
    """
    widths = sorted(counts)
    numbers = [counts[width] for width in widths]
    if not widths or numbers != sorted(numbers) or numbers[0] < 1 or numbers[-1] > len(table):
        raise ValueError(
            f"numbers of clusters must not decrease with the prefix, from 1 up to {len(table)} tokens, but are "
            f"{dict(counts)}"
        )
    found: dict[int, np.ndarray] = {}
    labels = np.zeros(len(table), dtype=np.int64)
    for width in widths:
        labels = _refine(prefix_distances(table, tree_width or width, centre), labels, counts[width], method)
        found[width] = labels
    return found


def _join(distances: np.ndarray, method: str) -> np.ndarray:
    if method not in LINKAGES:
        raise ValueError(f"linkage {method!r} does not exist; choose one of {', '.join(LINKAGES)}")
    return linkage(np.sqrt(2 * distances) if method == "ward" else distances, method)


def _refine(distances: np.ndarray, labels: np.ndarray, count: int, method: str) -> np.ndarray:
    """`labels` with clusters cut further, until there are `count`."""
    square = squareform(distances)
    trees, heights = {}, []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) > 1:
            tree = _join(square[np.ix_(members, members)][np.triu_indices(len(members), 1)], method)
            trees[label] = members, tree
            heights += [(height, label) for height in tree[:, 2]]
    # The highest joins of all trees are undone.
    cuts = sorted(heights, reverse=True)[: count - len(np.unique(labels))]
    refined = np.zeros_like(labels)
    next_label = 0
    for label in np.unique(labels):
        members, pieces = np.flatnonzero(labels == label), 1 + sum(cut[1] == label for cut in cuts)
        own = fcluster(trees[label][1], pieces, "maxclust") - 1 if label in trees else np.zeros(1, dtype=np.int64)
        refined[members] = next_label + own
        next_label += int(own.max()) + 1
    return refined


def dbscan_clusters(table: torch.Tensor, width: int, eps: float = 0.1, min_samples: int = 3) -> np.ndarray:
    """DBSCAN on [`prefix_distances`], with the settings of the first Matryoshka GPT; each token that is in no cluster
    is one of its own."""
    distances = squareform(prefix_distances(table, width))
    return _own(DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(distances))


def hdbscan_clusters(table: torch.Tensor, width: int, min_cluster_size: int = 3) -> np.ndarray:
    """HDBSCAN on [`prefix_distances`]; each token that is in no cluster is one of its own."""
    distances = squareform(prefix_distances(table, width))
    return _own(HDBSCAN(min_cluster_size=min_cluster_size, metric="precomputed", copy=True).fit_predict(distances))


def _own(labels: np.ndarray) -> np.ndarray:
    alone = labels < 0
    return np.where(alone, labels.max() + 1 + np.cumsum(alone), labels)
