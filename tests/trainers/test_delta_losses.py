import math

import pytest
import torch
from torch.nn import functional as F

from hf_matryoshka.trainers.losses.feature_alignment import feature_alignment_loss
from hf_matryoshka.trainers.losses.knowledge_distillation import knowledge_distillation_loss
from hf_matryoshka.trainers.losses.masked_lm import masked_lm_losses, token_mean
from hf_matryoshka.trainers.losses.upgrade_hinge import upgrade_hinge_loss


def test_masked_lm_losses_are_in_nats_and_float32():
    logits = torch.tensor([[0.0, 0.0, 0.0], [math.log(2), 0.0, math.log(5)]])
    losses = masked_lm_losses(logits.to(torch.bfloat16), torch.tensor([1, 0]))
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, torch.tensor([math.log(3), math.log(4)]), atol=0.02, rtol=0)
    assert token_mean(losses).item() == pytest.approx(losses.mean().item())
    nothing = masked_lm_losses(torch.zeros(0, 3, requires_grad=True), torch.zeros(0, dtype=torch.long))
    assert token_mean(nothing).item() == 0 and token_mean(nothing).requires_grad


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_distillation_is_the_scaled_divergence_and_teaches_the_student_only(temperature):
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 7, requires_grad=True), torch.randn(5, 7, requires_grad=True)
    p, q = (torch.softmax(logits / temperature, -1) for logits in (teacher, student))
    expected = temperature**2 * (p * (p.log() - q.log())).sum(-1).mean()
    loss = knowledge_distillation_loss(student, teacher, temperature)
    torch.testing.assert_close(loss, expected)
    assert knowledge_distillation_loss(teacher, teacher, temperature).item() == pytest.approx(0, abs=1e-6)
    loss.backward()
    assert teacher.grad is None
    # The gradient of the soft cross-entropy.
    torch.testing.assert_close(student.grad, temperature * (q - p).detach() / 5)
    assert knowledge_distillation_loss(student[:0], teacher[:0]).item() == 0


def test_alignment_is_a_cosine_over_real_tokens_of_the_leading_columns():
    torch.manual_seed(0)
    states = [torch.randn(2, 3, 4, requires_grad=True) for _ in range(2)]
    targets = [torch.randn(2, 3, 6, requires_grad=True) for _ in range(2)]
    mask = torch.tensor([[True, True, False], [True, False, False]])
    cosines = [
        F.cosine_similarity(state, target[..., :4], dim=-1) for state, target in zip(states, targets, strict=True)
    ]
    expected = torch.stack([1 - cosine[mask].mean() for cosine in cosines]).mean()
    loss = feature_alignment_loss(states, targets, mask)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert targets[0].grad is None and not states[1].grad[~mask].any() and states[1].grad[mask].any()
    torch.testing.assert_close(feature_alignment_loss(states, targets), 1 - torch.stack(cosines).mean())
    assert feature_alignment_loss([3 * targets[0][..., :4]], targets[:1]).item() == pytest.approx(0, abs=1e-6)
    assert feature_alignment_loss([-targets[0]], targets[:1]).item() == pytest.approx(2)


def test_the_hinge_asks_the_larger_budget_only():
    losses = {level: torch.tensor(values, requires_grad=True) for level, values in enumerate([[1.0, 2.0], [3.0, 1.5]])}
    losses[4] = torch.tensor([0.5, 2.5], requires_grad=True)
    assert upgrade_hinge_loss(losses, [(0, 1)]).item() == pytest.approx(1.0)
    assert upgrade_hinge_loss(losses, [(0, 1)], margin=1.0).item() == pytest.approx((3.0 + 0.5) / 2)
    loss = upgrade_hinge_loss(losses, [(0, 1), (0, 4), (1, 4)])
    assert loss.item() == pytest.approx((2.0 + 0.5 + 1.0) / 6)
    loss.backward()
    assert losses[0].grad is None
    assert losses[1].grad.tolist() == pytest.approx([1 / 6, 0])
    assert losses[4].grad.tolist() == pytest.approx([0, 2 / 6])
