"""Masks of its own for every budget."""

import pytest
import torch

from hf_matryoshka.trainers.losses.knowledge_distillation import knowledge_distillation_loss

from .delta_runs import ARCHITECTURES, batch, cross_entropy, make, trainer


def masked_batch(maskings=3):
    """A batch whose other maskings are of other tokens."""
    inputs, others = batch(), []
    for number in range(1, maskings):
        generator = torch.Generator().manual_seed(number)
        original = inputs["input_ids"]
        picked = torch.rand(original.shape, generator=generator) < 0.4
        others.append({"input_ids": original.masked_fill(picked, 2), "labels": original.masked_fill(~picked, -100)})
    return inputs | {"other_maskings": others}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("distil", [False, True])
def test_a_smaller_budget_predicts_the_tokens_of_its_own_masking(architecture, distil, tmp_path):
    model = make(architecture)
    built = trainer(tmp_path, model, enable_kd=distil, level_sampling="all", level_weights=[1.0, 2.0, 3.0])
    inputs = masked_batch()
    model.train()
    found = built.compute_loss(model, inputs)
    plain = {name: value for name, value in inputs.items() if name != "other_maskings"}
    losses = []
    for level in range(3):
        own = plain if level == 2 else plain | inputs["other_maskings"][level]
        logits, labels = model(**own, level=level).logits, own["labels"]
        loss = cross_entropy(logits, labels)
        if distil and level < 2:
            taught = model(**own).logits.detach()[labels != -100]
            loss = (loss + knowledge_distillation_loss(logits[labels != -100], taught, 1.0)) / 2
        losses.append(loss)
    expected = (losses[0] + 2 * losses[1] + 3 * losses[2]) / 6
    torch.testing.assert_close(found, expected)
    # In evaluation all budgets predict the same tokens.
    model.eval()
    with torch.no_grad():
        expected = [cross_entropy(model(**plain, level=level).logits, plain["labels"]) for level in range(3)]
        found = built.compute_loss(model, inputs)
    torch.testing.assert_close(found, (expected[0] + 2 * expected[1] + 3 * expected[2]) / 6)


def test_maskings_that_do_not_fit_are_refused(tmp_path):
    model = make().train()
    with pytest.raises(ValueError, match="a batch has 2 maskings, but there are 3 budgets; let the collator make one"):
        trainer(tmp_path, model).compute_loss(model, masked_batch(2))
    for flag in ("enable_cscf", "enable_mug"):
        with pytest.raises(ValueError, match="budgets with masks of their own cannot be compared token by token"):
            trainer(tmp_path, model, **{flag: True}).compute_loss(model, masked_batch())
