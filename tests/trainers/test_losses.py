import math

import pytest
import torch

from hf_matryoshka.trainers.losses.contrastive import contrastive_loss
from hf_matryoshka.trainers.losses.rank_distillation import neighbour_distribution, rank_distillation_loss
from hf_matryoshka.trainers.losses.ranking import ranking_loss
from hf_matryoshka.trainers.losses.similarity import reconstruction_loss, similarity_loss


def test_similarity_loss_is_the_mean_absolute_difference_over_the_mask():
    similarities = torch.tensor([[0.5, 0.0], [0.2, 0.9]])
    targets = torch.tensor([[0.4, 0.3], [0.2, 0.4]])
    assert similarity_loss(similarities, targets).item() == pytest.approx((0.1 + 0.3 + 0.0 + 0.5) / 4)
    mask = torch.tensor([[True, False], [False, True]])
    assert similarity_loss(similarities, targets, mask).item() == pytest.approx(0.3)
    assert similarity_loss(similarities, targets, torch.zeros(2, 2, dtype=torch.bool)).item() == 0


def test_reconstruction_loss_is_zero_only_without_change():
    x = torch.nn.functional.normalize(torch.randn(3, 4), dim=-1)
    assert reconstruction_loss(x, x).item() == 0
    assert reconstruction_loss(-x, x).item() == pytest.approx(2 * x.abs().sum(-1).mean().item(), rel=1e-5)


def brute_force_ranking(similarities, relevance):
    total = weight = 0.0
    for s, y in zip(similarities.tolist(), relevance.tolist(), strict=True):
        for j in range(len(s)):
            for k in range(len(s)):
                if y[j] > y[k]:
                    total += (y[j] - y[k]) * math.log1p(math.exp(s[k] - s[j]))
                    weight += y[j] - y[k]
    return total / weight


def test_ranking_loss_equals_the_triple_sum():
    similarities = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    relevance = torch.tensor([[2, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 3]]).float()
    assert ranking_loss(similarities, relevance).item() == pytest.approx(
        brute_force_ranking(similarities, relevance), rel=1e-5
    )
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[:, 5] = False
    assert ranking_loss(similarities, relevance, mask).item() == pytest.approx(
        brute_force_ranking(similarities[:3, :5], relevance[:3, :5]), rel=1e-5
    )
    assert ranking_loss(similarities, torch.zeros(4, 6)).item() == 0


def test_rank_distillation_is_a_divergence_over_the_mask():
    targets = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    assert rank_distillation_loss(targets, neighbour_distribution(targets)).item() == pytest.approx(0, abs=1e-6)
    student = targets.flip(-1)
    p, q = torch.softmax(targets / 0.5, -1), torch.softmax(student / 0.5, -1)
    expected = (p * (p / q).log()).sum(-1).mean()
    assert rank_distillation_loss(student, p, temperature=0.5).item() == pytest.approx(expected.item(), rel=1e-5)
    mask = torch.tensor([[True, True, True, True, False]] * 3)
    changed = student.clone()
    changed[:, 4] += 10
    target = neighbour_distribution(targets, mask, 0.5)
    assert (target[:, 4] == 0).all()
    assert torch.equal(
        rank_distillation_loss(changed, target, mask, 0.5), rank_distillation_loss(student, target, mask, 0.5)
    )


def test_labels_take_their_share_of_the_target():
    similarities = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    relevance = torch.tensor([[2.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    plain = neighbour_distribution(similarities, temperature=0.5)
    mixed = neighbour_distribution(similarities, None, 0.5, relevance, torch.tensor([0.3, 0.9, 1.0]))
    assert torch.allclose(mixed[0], 0.7 * plain[0] + 0.3 * torch.tensor([2 / 3, 1 / 3, 0, 0]))
    assert torch.allclose(mixed[1], plain[1])  # nothing to mix in
    assert torch.equal(mixed[2], torch.tensor([0.0, 0.0, 0.0, 1.0]))
    assert torch.allclose(mixed.sum(-1), torch.ones(3))
    # With all the mass on one label the loss is InfoNCE.
    student = torch.randn(1, 4)
    expected = torch.nn.functional.cross_entropy(student / 0.5, torch.tensor([3]))
    assert rank_distillation_loss(student, mixed[2:], temperature=0.5).item() == pytest.approx(expected.item())


def test_contrastive_loss_sets_each_positive_against_the_negatives_only():
    similarities = torch.tensor([[0.9, 0.8, 0.1, 0.3]])
    positives = torch.tensor([[True, True, False, False]])
    negatives = math.exp(0.1 / 0.5) + math.exp(0.3 / 0.5)
    expected = [-math.log(math.exp(s / 0.5) / (math.exp(s / 0.5) + negatives)) for s in (0.9, 0.8)]
    assert contrastive_loss(similarities, positives, temperature=0.5).item() == pytest.approx(sum(expected) / 2)
    mask = torch.tensor([[True, True, True, False]])
    only = [-math.log(math.exp(s / 0.5) / (math.exp(s / 0.5) + math.exp(0.1 / 0.5))) for s in (0.9, 0.8)]
    assert contrastive_loss(similarities, positives, mask, 0.5).item() == pytest.approx(sum(only) / 2)
    assert contrastive_loss(similarities, torch.zeros_like(positives)).item() == 0


@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize("loss", [similarity_loss, rank_distillation_loss])
def test_distillation_losses_are_finite_and_do_not_grow_with_the_batch(loss, scale):
    similarities, targets = scale * torch.randn(4, 6), scale * torch.randn(4, 6)
    if loss is rank_distillation_loss:
        targets = neighbour_distribution(targets)
    similarities.requires_grad_()
    value = loss(similarities, targets)
    value.backward()
    assert value.isfinite() and similarities.grad.isfinite().all()
    twice = loss(similarities.repeat(2, 1), targets.repeat(2, 1))
    assert twice.item() == pytest.approx(value.item(), rel=1e-5)


@pytest.mark.parametrize("loss", [ranking_loss, lambda s, y: contrastive_loss(s, y > 0)])
def test_supervised_losses_are_finite_and_do_not_grow_with_the_batch(loss):
    similarities = (1e3 * torch.randn(4, 6)).requires_grad_()
    relevance = torch.eye(4, 6)
    value = loss(similarities, relevance)
    value.backward()
    assert value.isfinite() and similarities.grad.isfinite().all()
    twice = loss(similarities.repeat(2, 1), relevance.repeat(2, 1))
    assert twice.item() == pytest.approx(value.item(), rel=1e-5)
