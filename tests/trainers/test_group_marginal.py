"""Losses on groups of tokens, against their definitions."""

import torch

from hf_matryoshka.trainers.losses.group_marginal import (
    group_log_probabilities,
    group_marginal_loss,
    soft_group_loss,
)


GROUPS = torch.tensor([0, 0, 1, 2, 1, 0])


def draw():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(7, 6, generator=generator)
    return logits.requires_grad_(), torch.randint(6, (7,), generator=generator)


def test_a_group_has_the_sum_of_its_tokens_probabilities():
    logits, targets = draw()
    probabilities = logits.softmax(-1)
    sums = torch.stack([probabilities[:, group == GROUPS].sum(1) for group in range(3)], dim=1)
    torch.testing.assert_close(group_log_probabilities(logits, GROUPS).exp(), sums)
    expected = -sums[torch.arange(7), GROUPS[targets]].log().mean()
    loss = group_marginal_loss(logits, targets, GROUPS)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(one, logits, retain_graph=True)[0] for one in (loss, expected)))
    # Each token a group: the plain cross-entropy. One group: nothing to say.
    single = group_marginal_loss(logits, targets, torch.arange(6))
    torch.testing.assert_close(single, torch.nn.functional.cross_entropy(logits, targets))
    assert group_marginal_loss(logits, targets, torch.zeros(6, dtype=torch.long)).abs() < 1e-6


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[200.0, -200, -300, 0, -250, -200]], requires_grad=True)
    loss = group_marginal_loss(logits, torch.tensor([2]), GROUPS)
    loss.backward()
    assert abs(loss.item() - 450) < 1 and logits.grad.isfinite().all()


def test_soft_targets_are_uniform_in_the_group_and_cost_at_least_its_size_more():
    logits, targets = draw()
    logs = logits.log_softmax(-1)
    expected = -torch.stack([logs[row, GROUPS == GROUPS[target]].mean() for row, target in enumerate(targets)]).mean()
    loss = soft_group_loss(logits, targets, GROUPS)
    torch.testing.assert_close(loss, expected)
    sizes = torch.bincount(GROUPS)[GROUPS[targets]].float()
    assert loss >= group_marginal_loss(logits, targets, GROUPS) + sizes.log().mean()
