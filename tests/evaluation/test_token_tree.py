"""Trees of tokens and how good they are."""

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import fcluster, linkage

from hf_matryoshka.evaluation.hierarchy_metrics import (
    adjusted_rand_index,
    cophenetic_correlation,
    dendrogram_purity,
    leaf_order,
    mistake_severity,
    nestedness,
    normalized_mutual_information,
)
from hf_matryoshka.evaluation.token_tree import (
    dbscan_clusters,
    hdbscan_clusters,
    nested_clusters,
    prefix_distances,
    prefix_linkage,
)


def blobs():
    """Twelve tokens: two directions in the first two columns, and two in the next ones inside each."""
    generator = torch.Generator().manual_seed(0)
    coarse, fine = torch.arange(12) // 6, torch.arange(12) // 3 % 2
    table = torch.zeros(12, 6)
    table[torch.arange(12), coarse] = 3.0
    table[torch.arange(12), 2 + fine] = 2.0
    return table + 0.05 * torch.randn(12, 6, generator=generator), coarse.numpy(), (2 * coarse + fine).numpy()


def test_finer_clusters_lie_inside_coarser_ones():
    table, coarse, fine = blobs()
    found = nested_clusters(table, {2: 2, 4: 4, 6: 7})
    assert adjusted_rand_index(found[2], coarse) == 1 and adjusted_rand_index(found[4], fine) == 1
    assert len(np.unique(found[6])) == 7 and nestedness(found[4], found[6]) == nestedness(found[2], found[4]) == 1
    assert found[6].max() == 6
    # Also where the prefixes do not agree at all.
    noise = torch.randn(40, 8, generator=torch.Generator().manual_seed(1))
    found = nested_clusters(noise, {1: 3, 2: 3, 4: 9, 8: 40})
    assert [len(np.unique(found[width])) for width in (1, 2, 4, 8)] == [min(3, 2), 3, 9, 40]
    assert nestedness(found[2], found[4]) == nestedness(found[4], found[8]) == 1
    alone = nested_clusters(noise, {4: 9})
    assert nestedness(found[1], alone[4]) < 1
    for counts in ({}, {4: 0}, {2: 4, 4: 3}, {4: 41}):
        with pytest.raises(ValueError, match="numbers of clusters must not decrease"):
            nested_clusters(noise, counts)


def test_distances_are_cosine_of_the_prefix():
    table = torch.tensor([[1.0, 0, 5], [2, 0, -9], [0, 1, 0], [0, 0, 1]])
    # The last row has no direction in two columns.
    assert prefix_distances(table, 2).tolist() == pytest.approx([0, 1, 1, 1, 1, 1])
    assert prefix_linkage(table, 2)[0, :2].tolist() == [0, 1]
    with pytest.raises(ValueError, match="width 4 is not between 1 and the 3 columns"):
        prefix_distances(table, 4)


def test_ward_joins_unit_rows():
    table = torch.randn(30, 6, generator=torch.Generator().manual_seed(2))
    rows = torch.nn.functional.normalize(table[:, :4].double(), dim=-1).numpy()
    np.testing.assert_allclose(prefix_linkage(table, 4, "ward"), linkage(rows, "ward"), atol=1e-9)
    centred = table - table.mean(0)
    np.testing.assert_allclose(prefix_distances(table + 5, 4, centre=True), prefix_distances(centred, 4), atol=1e-5)
    with pytest.raises(ValueError, match="linkage 'median' does not exist; choose one of average, complete"):
        prefix_linkage(table, 4, "median")


@pytest.mark.parametrize("method", ["average", "complete", "ward"])
def test_one_tree_is_cut_for_all_lengths(method):
    table = torch.randn(30, 6, generator=torch.Generator().manual_seed(3))
    found = nested_clusters(table, {1: 3, 2: 7, 4: 7}, method, tree_width=6, centre=True)
    tree = prefix_linkage(table, 6, method, centre=True)
    for width, count in ((1, 3), (2, 7), (4, 7)):
        assert adjusted_rand_index(found[width], fcluster(tree, count, "maxclust")) == 1


def test_clusters_by_density_leave_noise_alone():
    table, _, fine = blobs()
    table = torch.cat([table, -torch.ones(1, 6)])
    for found in (dbscan_clusters(table, 4), hdbscan_clusters(table, 4)):
        assert adjusted_rand_index(found[:12], fine) == 1 and (found == found[12]).sum() == 1


def test_dendrogram_purity_is_its_definition():
    generator = np.random.default_rng(0)
    points, labels = generator.normal(size=(9, 2)), np.array([0, 0, 1, 1, 1, 2, 2, 2, 0])
    tree = linkage(points, "average")
    leaves = {leaf: {leaf} for leaf in range(9)}
    for number, (left, right, *_) in enumerate(tree, start=9):
        leaves[number] = leaves[int(left)] | leaves[int(right)]
    shares = []
    for one in range(9):
        for other in range(one):
            if labels[one] == labels[other]:
                meeting = min((found for found in leaves.values() if {one, other} <= found), key=len)
                shares.append(np.mean([labels[leaf] == labels[one] for leaf in meeting]))
    assert dendrogram_purity(tree, labels) == pytest.approx(np.mean(shares))
    assert dendrogram_purity(linkage([[0.0], [1], [10], [11]], "single"), [5, 5, 3, 3]) == 1
    with pytest.raises(ValueError, match="no class has two members"):
        dendrogram_purity(tree, range(9))
    assert sorted(leaf_order(tree)) == list(range(9))


def test_other_metrics():
    table, coarse, fine = blobs()
    distances = prefix_distances(table, 4)
    assert cophenetic_correlation(prefix_linkage(table, 4), distances) > 0.9
    assert nestedness(coarse, fine) == 1 and nestedness(fine, coarse) == 0
    assert normalized_mutual_information(fine, fine) == 1 and normalized_mutual_information(coarse, fine) < 1
    targets = np.array([0, 0, 0, 0])
    # Right; same fine group; same coarse group; another one.
    assert mistake_severity([0, 1, 4, 11], targets, [fine, coarse]) == pytest.approx((1 + 2 + 3) / 3)
    assert mistake_severity(targets, targets, [fine, coarse]) == 0
