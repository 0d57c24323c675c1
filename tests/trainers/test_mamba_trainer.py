"""The trainer of Matryoshka Mamba encoders, on tiny ones."""

import pytest
import torch
from torch.nn import functional as F

from hf_matryoshka.data.embedding_batches import EmbeddingCollator
from hf_matryoshka.trainers.dim_curriculum import dim_factors
from hf_matryoshka.trainers.losses.contrastive import contrastive_loss, pair_relations
from hf_matryoshka.trainers.losses.embedding_distillation import (
    cosine_distillation_loss,
    relational_distillation_loss,
    squared_distance_loss,
)
from hf_matryoshka.trainers.mamba_arguments import MambaTrainingArguments
from hf_matryoshka.trainers.mamba_trainer import MambaTrainer
from tests.modeling.mamba_models import make


OFF = dict.fromkeys(("contrastive_weight", "mse_weight", "cosine_weight", "relational_weight"), 0.0)
OFF |= {"consistency_weight": 0.0}


def make_model(**options):
    return make(num_hidden_layers=1, hidden_dropout_prob=0.0, widths=[0.5, 1.0], **options)


def make_rows(count=48, pairs=False, seed=1):
    """Texts of several lengths; the teacher's embedding is a mean of fixed random vectors of their tokens."""
    generator = torch.Generator().manual_seed(seed)
    table = F.normalize(torch.randn(100, 16, generator=torch.Generator().manual_seed(7)), dim=-1)
    rows = []
    for number in range(count):
        ids = torch.randint(1, 100, (4 + number % 5,), generator=generator)
        rows.append({"input_ids": ids.numpy(), "embedding": F.normalize(table[ids].mean(0), dim=0).numpy()})
        if pairs:
            partner = ids[torch.randperm(len(ids), generator=generator)][1:]
            embedding = F.normalize(table[partner].mean(0), dim=0).numpy()
            rows[-1] |= {"pair_input_ids": partner.numpy(), "pair_embedding": embedding}
    return rows


collate = EmbeddingCollator(0)


def make_trainer(folder, model=None, rows=None, collator=collate, **arguments):
    settings = {
        "output_dir": str(folder),
        "use_cpu": True,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 48,
        "max_steps": 12,
        "learning_rate": 3e-3,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_steps": 4,
    }
    rows = make_rows() if rows is None else rows
    return MambaTrainer(
        model=model or make_model(),
        args=MambaTrainingArguments(**(settings | arguments)),
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=collator,
    )


def prefix(embeddings, dim):
    return F.normalize(embeddings[:, :dim], dim=-1)


def test_the_loss_of_a_width_is_the_sum_of_the_terms_of_its_dimensions(tmp_path):
    model = make_model()
    weights = {"mse_weight": 2.0, "cosine_weight": 3.0, "relational_weight": 0.7, "consistency_weight": 0.4}
    trainer = make_trainer(tmp_path, model, dim_weights=[1.0, 2.0, 0.5], temperature=0.1, **weights)
    inputs = collate(make_rows(6))
    shared = trainer.prepare_step(model, inputs)
    targets = inputs["embedding"]
    for level in range(2):
        loss, embeddings = trainer.level_loss(model, inputs, level, shared)
        expected = model(inputs["input_ids"], inputs["attention_mask"], level=level).embeddings
        torch.testing.assert_close(embeddings, expected)
        small, same, full = (prefix(expected, dim) for dim in (8, 16, 48))

        def relational(own, other):
            return relational_distillation_loss(own, other, 0.1)

        first = 0.7 * relational(small, targets) + 0.4 * relational(small, full)
        second = 0.7 * relational(same, targets) + 0.4 * relational(same, full)
        second = second + 2 * (same - targets).square().sum(1).mean() + 3 * (1 - (same * targets).sum(1).mean())
        third = 0.7 * relational(full, targets)
        torch.testing.assert_close(loss, first + 2 * second + 0.5 * third)
        # What is reported of a dimension has no weight of the dimension in it.
        reported = trainer._evaluation_terms.pop(trainer.accelerator)
        names = [f"loss_{model.config.levels[level]}_d{dim}" for dim in (8, 16, 48)]
        assert [reported[name] for name in names] == pytest.approx([first.item(), second.item(), third.item()], 1e-4)


def test_consistency_leaves_the_largest_dimension_alone(tmp_path):
    model = make_model()
    trainer = make_trainer(tmp_path, model, **(OFF | {"consistency_weight": 1.0, "cosine_weight": 1e-9}))
    inputs = collate(make_rows(6))
    loss, _ = trainer.level_loss(model, inputs, 1, trainer.prepare_step(model, inputs))
    loss.backward()
    bands = [layer.weight.grad.abs().max().item() for layer in model.head.projections]
    assert bands[0] > 1e-4 and bands[1] > 1e-4 and bands[2] < 1e-6


def test_the_teacher_is_compared_with_its_own_dimension_or_the_leading_part_of_the_next(tmp_path):
    model = make_model()
    trainer = make_trainer(tmp_path, model, **(OFF | {"cosine_weight": 1.0}))
    inputs = collate(make_rows(6))
    for width, dim in ((16, 16), (12, 16), (8, 8), (40, 48)):
        inputs["embedding"] = torch.randn(6, width, generator=torch.Generator().manual_seed(2))
        embeddings = model(inputs["input_ids"], inputs["attention_mask"]).embeddings
        losses = trainer._dim_losses(embeddings, trainer.prepare_step(model, inputs))
        expected = cosine_distillation_loss(embeddings[:, :width], inputs["embedding"])
        torch.testing.assert_close(losses.pop(dim), expected)
        assert not any(losses.values())
    inputs["embedding"] = torch.randn(6, 64)  # wider than the model
    assert not any(trainer._dim_losses(embeddings, trainer.prepare_step(model, inputs)).values())


def test_pairs_are_drawn_together_and_everything_else_is_a_negative(tmp_path):
    model = make_model()
    rows = [row for pair in zip(make_rows(3, pairs=True), make_rows(3, seed=5), strict=True) for row in pair]
    inputs = collate(rows)
    assert inputs["pair_rows"].tolist() == [0, 2, 4]
    trainer = make_trainer(
        tmp_path, model, **(OFF | {"contrastive_weight": 1.0, "relational_weight": 0.5}), contrastive_temperature=0.2
    )
    shared = trainer.prepare_step(model, inputs)
    loss, embeddings = trainer.level_loss(model, inputs, 1, shared)
    assert embeddings.shape == (9, 48)
    texts = [row["input_ids"] for row in rows] + [row["pair_input_ids"] for row in rows if "pair_input_ids" in row]
    alone = [model(torch.from_numpy(text)[None]).embeddings[0] for text in texts]
    torch.testing.assert_close(embeddings, torch.stack(alone))
    targets = torch.cat((inputs["embedding"], inputs["pair_embedding"]))
    expected = 0
    for dim in (8, 16, 48):
        own = prefix(embeddings, dim)
        logits = (own @ own.T / 0.2).fill_diagonal_(-torch.inf)
        partners = {0: 6, 2: 7, 4: 8}
        both = partners | {second: first for first, second in partners.items()}
        terms = [F.cross_entropy(logits[one], torch.tensor(other)) for one, other in both.items()]
        expected = expected + torch.stack(terms).mean() + 0.5 * relational_distillation_loss(own, targets)
    torch.testing.assert_close(loss, expected)
    # Without the partners' embeddings only the texts themselves are distilled; without any, only pairs are learned.
    del inputs["pair_embedding"]
    assert len(trainer.prepare_step(model, inputs).targets) == 6
    del inputs["embedding"]
    assert torch.isfinite(trainer.compute_loss(model, inputs))
    with pytest.raises(ValueError, match="a batch needs embedding .those of a teacher. or pair_input_ids"):
        trainer.prepare_step(model, {name: inputs[name] for name in ("input_ids", "attention_mask")})


def test_equal_texts_are_no_negatives():
    # Rows 0 and 1 are one text with the partners 2 and 3; row 4 has no partner, and row 5 equals it.
    texts = torch.tensor([[1, 2], [1, 2], [3, -1], [4, 5], [6, 7], [6, 7]])
    positives, mask = pair_relations(texts, torch.tensor([0, 1]), torch.tensor([2, 3]))
    drawn = {tuple(pair) for pair in positives.nonzero().tolist()}
    assert drawn == {(a, b) for a in (0, 1) for b in (2, 3)} | {(b, a) for a in (0, 1) for b in (2, 3)}
    left_out = {tuple(pair) for pair in (~mask).nonzero().tolist()}
    assert left_out == {(row, row) for row in range(6)} | {(0, 1), (1, 0), (4, 5), (5, 4)}
    similarities = torch.eye(6)
    similarities[0, 1] = similarities[1, 0] = 50.0
    assert contrastive_loss(similarities, positives, mask) < 4


def test_the_squared_distance_is_twice_the_cosine_loss():
    one, two = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(squared_distance_loss(one, two), 2 * cosine_distillation_loss(one, two))


def agreement(model, rows):
    """By width and dimension, how the cosines of all pairs of texts correlate with the teacher's."""
    inputs, found = collate(rows), {}
    pairs = torch.ones(len(rows), len(rows)).triu(1).bool()
    expected = (inputs["embedding"] @ inputs["embedding"].T)[pairs]
    with torch.no_grad():
        for level in model.config.levels:
            for dim, own in model.eval().embed_all(inputs["input_ids"], inputs["attention_mask"], level).items():
                found[level, dim] = torch.corrcoef(torch.stack(((own @ own.T)[pairs], expected)))[0, 1].item()
    return found


def test_training_learns_every_width_and_dimension(tmp_path):
    model, rows = make_model(), make_rows()
    trainer = make_trainer(tmp_path, model, rows, max_steps=80, learning_rate=1e-2, gradient_conflict_steps=10)
    before, start = trainer.evaluate(), agreement(model, rows)
    trainer.train()
    after = trainer.evaluate()
    for level in model.config.levels:
        for dim in (8, 16, 48):
            name = f"eval_loss_{level}_d{dim}"
            assert after[name] < (0.6 if dim == 8 else 0.4) * before[name]
    assert max(start.values()) < 0.2 and min(agreement(model, rows).values()) > 0.55
    logged = {name for entry in trainer.state.log_history for name in entry}
    assert {f"loss_{level}_d{dim}" for level in model.config.levels for dim in (8, 16, 48)} <= logged
    conflicts = [entry for entry in trainer.state.log_history if "gradient_cosine" in entry]
    # Logged every 4 steps; measured in steps 0, 10, 20, …
    assert [entry["step"] for entry in conflicts] == [4, 12, 24, 32, 44, 52, 64, 72]
    assert all(-1 <= entry["gradient_cosine_d8_d48"] <= 1 for entry in conflicts)


def test_gradient_cosines_are_those_of_the_last_hidden_states(tmp_path):
    model = make_model()
    trainer = make_trainer(tmp_path, model, gradient_conflict_steps=1, level_sampling="random", levels_per_step=1)
    inputs = collate(make_rows(6))
    trainer.compute_loss(model.train(), inputs)
    found = trainer._training_terms.pop(trainer.accelerator)
    (level,) = trainer._step_levels()
    output = model(inputs["input_ids"], inputs["attention_mask"], level=level)
    losses = trainer._dim_losses(output.embeddings, trainer.prepare_step(model, inputs))
    gradients = [
        torch.autograd.grad(loss, output.last_hidden_state, retain_graph=True)[0].flatten() for loss in losses.values()
    ]
    cosines = [F.cosine_similarity(gradients[a], gradients[b], dim=0) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert found["gradient_cosine"] == pytest.approx(torch.stack(cosines).mean().item(), abs=1e-5)
    assert found["gradient_cosine_d8_d48"] == pytest.approx(cosines[1].item(), abs=1e-5)
    assert not model.norm._forward_hooks
    trainer.state.global_step = 1
    trainer.args.gradient_conflict_steps = 2
    trainer.compute_loss(model, inputs)
    assert "gradient_cosine" not in trainer._training_terms.pop(trainer.accelerator)


def test_a_curriculum_says_which_dimensions_a_step_computes(tmp_path):
    model = make_model()
    settings = {"dim_curriculum": "bottom_up", "curriculum_fraction": 0.75, "curriculum_warmup": 1.0}
    trainer = make_trainer(tmp_path, model, max_steps=24, dim_weights=[1.0, 3.0, 1.0], **settings)
    trainer.state.max_steps = 24
    inputs = collate(make_rows(6))
    computed = []
    forward = model.forward
    model.forward = lambda *args, **kwargs: computed.append(kwargs["matryoshka_dim"]) or forward(*args, **kwargs)
    for step, dims in ((0, [8]), (5, [8]), (6, [8, 16]), (13, [8, 16, 48]), (23, [8, 16, 48])):
        trainer.state.global_step = step
        shared = trainer.prepare_step(model.train(), inputs)
        factors = dim_factors(step, 24, [8, 16, 48], trainer.args)
        assert shared.dims == {dim: factors[dim] * {8: 1.0, 16: 3.0, 48: 1.0}[dim] for dim in dims}
        loss, _ = trainer.level_loss(model, inputs, 1, shared)
        own = trainer._training_terms.pop(trainer.accelerator)
        assert list(own) == [f"loss_w1.0_d{dim}" for dim in dims] and computed.pop() == dims[-1]
        assert loss.item() == pytest.approx(sum(shared.dims[dim] * own[f"loss_w1.0_d{dim}"] for dim in dims), 1e-4)
        # What is being warmed up is no example for the others yet.
        assert shared.full == {0: 8, 5: 8, 6: 8, 13: 16, 23: 48}[step]
    shared = trainer.prepare_step(model.eval(), inputs)
    assert shared.dims == {8: 1.0, 16: 3.0, 48: 1.0} and shared.full == 48


def trained(folder, **arguments):
    trainer = make_trainer(folder, **arguments)
    trainer.train()
    return trainer


def test_accumulated_gradients_are_those_of_the_large_batch(tmp_path):
    # The cosine is a mean over texts; relational and contrastive terms compare the texts of a micro-batch.
    settings = {**OFF, "cosine_weight": 1.0, "mse_weight": 0.5, "max_steps": 3, "learning_rate": 0.01}
    settings |= {"train_sampling_strategy": "sequential", "rows": make_rows(32), "optim": "sgd"}
    settings["max_grad_norm"] = 0.0  # clipping would hide another scale
    small = trained(tmp_path / "a", per_device_train_batch_size=4, gradient_accumulation_steps=2, **settings)
    large = trained(tmp_path / "b", per_device_train_batch_size=8, **settings)
    for one, two in zip(small.model.parameters(), large.model.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    moved = large.model.head.projections[0].weight - make_model().head.projections[0].weight
    assert moved.abs().max() > 1e-3  # so that equal weights mean equal gradients


def test_a_resumed_run_ends_with_the_same_weights(tmp_path):
    settings = {"rows": make_rows(pairs=True), "dim_curriculum": "sandwich", "dims_per_step": 1}
    settings |= {"level_sampling": "random", "levels_per_step": 1}
    whole = trained(tmp_path / "whole", **settings)
    trained(tmp_path / "cut", save_strategy="steps", save_steps=4, **settings)
    for step in (4, 8):  # in the first epoch and in the second
        again = make_trainer(tmp_path / f"again-{step}", **settings)
        again.train(resume_from_checkpoint=str(tmp_path / "cut" / f"checkpoint-{step}"))
        for one, two in zip(whole.model.parameters(), again.model.parameters(), strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_half_precision_and_checkpointing_train_and_measure(tmp_path):
    settings = {"bf16": True, "activation_checkpointing": True, "gradient_conflict_steps": 1, "logging_steps": 1}
    trainer = trained(tmp_path, max_steps=2, **settings)
    found = [entry["gradient_cosine"] for entry in trainer.state.log_history if "gradient_cosine" in entry]
    assert len(found) == 2 and all(-1 <= value <= 1 and value != 0 for value in found)


def test_bad_weights_of_dimensions_are_refused(tmp_path):
    with pytest.raises(ValueError, match="dim_weights must hold 3 positive numbers"):
        make_trainer(tmp_path, dim_weights=[1.0, 1.0])
