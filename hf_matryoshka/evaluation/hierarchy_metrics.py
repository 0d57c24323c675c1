"""How good a hierarchy of tokens is."""

from collections.abc import Sequence

import numpy as np
from scipy.cluster.hierarchy import cophenet, to_tree
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score


def dendrogram_purity(linkage: np.ndarray, labels: Sequence[int] | np.ndarray) -> float:
    """Mean, over pairs of one class, of the share of that class below their lowest common ancestor (Heller and
    Ghahramani 2005, "Bayesian Hierarchical Clustering", section 4.1).

    Args:
        linkage (`np.ndarray`): A tree, as `scipy.cluster.hierarchy.linkage` gives it.
        labels (`Sequence[int]`): The class of each leaf.

    Returns:
        `float`: From 0 to 1, 1 where each class is a subtree.

    Raises:
        ValueError: If no class has two members.
    """
    labels = np.unique(np.asarray(labels), return_inverse=True)[1]
    counts = {leaf: np.bincount([label], minlength=labels.max() + 1) for leaf, label in enumerate(labels)}
    total = pairs = 0.0
    for number, (left, right, *_) in enumerate(linkage, start=len(labels)):
        one, other = counts.pop(int(left)), counts.pop(int(right))
        joined = one + other
        counts[number] = joined
        meeting = one * other
        total += float((meeting * joined / joined.sum()).sum())
        pairs += float(meeting.sum())
    if not pairs:
        raise ValueError("no class has two members, so there is no pair to be pure about")
    return total / pairs


def cophenetic_correlation(linkage: np.ndarray, distances: np.ndarray) -> float:
    """Correlation of the heights at which pairs meet in a tree with their distances."""
    return float(cophenet(linkage, distances)[0])


def adjusted_rand_index(clusters: Sequence[int] | np.ndarray, labels: Sequence[int] | np.ndarray) -> float:
    """Agreement of clusters with classes over pairs, 0 for chance and 1 for equality (Hubert and Arabie 1985)."""
    return float(adjusted_rand_score(labels, clusters))


def normalized_mutual_information(clusters: Sequence[int] | np.ndarray, labels: Sequence[int] | np.ndarray) -> float:
    """Mutual information of clusters and classes over the mean of their entropies."""
    return float(normalized_mutual_info_score(labels, clusters))


def nestedness(coarse: Sequence[int] | np.ndarray, fine: Sequence[int] | np.ndarray) -> float:
    """Share of the finer clusters that lie inside one coarser cluster."""
    coarse, fine = np.asarray(coarse), np.asarray(fine)
    inside = [len(np.unique(coarse[fine == cluster])) == 1 for cluster in np.unique(fine)]
    return float(np.mean(inside))


def mistake_severity(
    predicted: Sequence[int] | np.ndarray, targets: Sequence[int] | np.ndarray, levels: Sequence[np.ndarray]
) -> float:
    """Mean height, over the wrong predictions, at which the predicted and the true token are in one group (Bertinetto
    et al., arXiv 1912.09393, section 3).

    Args:
        predicted, targets (`Sequence[int]`): Tokens.
        levels (`Sequence[np.ndarray]`): The group of each token, the finest level first.

    Returns:
        `float`: From 1, the finest level, to one more than there are levels, at the root; 0 without mistakes.
    """
    predicted, targets = np.asarray(predicted), np.asarray(targets)
    wrong = predicted != targets
    if not wrong.any():
        return 0.0
    heights = np.full(len(predicted), len(levels) + 1)
    for height, groups in reversed(list(enumerate(levels, start=1))):
        heights[groups[predicted] == groups[targets]] = height
    return float(heights[wrong].mean())


def leaf_order(linkage: np.ndarray) -> list[int]:
    """The leaves of a tree as a dendrogram shows them, from left to right."""
    return to_tree(linkage).pre_order()
