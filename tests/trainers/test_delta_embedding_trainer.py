"""The trainer of nested sentence encoders, on a tiny random BERT."""

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn
from torch.nn import functional as F

from hf_matryoshka import DeltaBertConfig, DeltaBertModel
from hf_matryoshka.trainers.delta_embedding_arguments import DeltaEmbeddingTrainingArguments
from hf_matryoshka.trainers.delta_embedding_trainer import DeltaEmbeddingTrainer
from hf_matryoshka.trainers.losses.embedding_distillation import (
    cosine_distillation_loss,
    relational_distillation_loss,
)


WIDTH = 32
BUDGETS = {
    "full": [[0.5, 4, 1], [0.5, 4, 3], [1.0, 4, 3]],
    "joint": [[0.5, 2, 2], [1.0, 4, 3]],
}


def make_model(residual="full"):
    torch.manual_seed(0)
    config = DeltaBertConfig(
        vocab_size=50,
        hidden_size=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=16,
        budgets=BUDGETS[residual],
        residual=residual,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.2,
    )
    return DeltaBertModel(config, add_pooling_layer=False)


def make_rows(model, count=48):
    """Texts of several lengths, and the embeddings that the model itself gives them."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for number in range(count):
        ids = torch.randint(3, 50, (4 + number % 8,), generator=generator)
        with torch.no_grad():
            state = model.eval()(input_ids=ids[None]).last_hidden_state.mean(1)[0]
        rows.append({"input_ids": ids.numpy(), "embedding": F.normalize(state, dim=0).numpy()})
    return rows


def collate(rows):
    length = max(len(row["input_ids"]) for row in rows)
    ids = np.stack([np.pad(row["input_ids"], (0, length - len(row["input_ids"]))) for row in rows])
    mask = np.stack([np.arange(length) < len(row["input_ids"]) for row in rows]).astype(np.int64)
    batch = {"input_ids": ids, "attention_mask": mask, "embedding": np.stack([row["embedding"] for row in rows])}
    return {name: torch.from_numpy(value) for name, value in batch.items()}


def make_trainer(model, folder, rows, dims=(8, 16), **arguments):
    settings = {
        "output_dir": str(folder),
        "use_cpu": True,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 48,
        "max_steps": 12,
        "learning_rate": 2e-3,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_steps": 4,
    }
    return DeltaEmbeddingTrainer(
        model=model,
        args=DeltaEmbeddingTrainingArguments(**(settings | arguments)),
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=collate,
        head=nn.Sequential(Pooling(WIDTH)),
        matryoshka_dims=dims,
    )


def test_the_loss_of_a_level_is_the_weighted_sum_of_its_terms(tmp_path):
    model = make_model()
    rows = make_rows(model)
    trainer = make_trainer(model, tmp_path, rows, cosine_weight=3.0, relational_weight=2.0, prefix_weight=0.7)
    inputs = collate(rows[:6])
    shared = trainer.prepare_step(model.eval(), inputs)
    assert shared.prefix in (8, 16)
    for level in range(3):
        loss, embeddings = trainer.level_loss(model, inputs, level, shared)
        mask = inputs["attention_mask"][..., None]
        states = model(inputs["input_ids"], inputs["attention_mask"], level=level).last_hidden_state
        pooled = (states * mask).sum(1) / mask.sum(1)
        torch.testing.assert_close(embeddings, pooled)
        expected = 3.0 * cosine_distillation_loss(pooled, inputs["embedding"])
        expected += 2.0 * relational_distillation_loss(pooled, inputs["embedding"])
        expected += 0.7 * relational_distillation_loss(pooled[:, : shared.prefix], inputs["embedding"])
        torch.testing.assert_close(loss, expected)
    full, _ = trainer.level_loss(model, inputs, 2, shared._replace(prefix=None))
    assert full < 1e-5  # it is its own teacher


def test_a_narrow_level_is_compared_with_the_leading_coordinates(tmp_path):
    model = make_model("joint")
    rows = make_rows(model)
    trainer = make_trainer(model, tmp_path, rows, relational_weight=0.0, prefix_weight=0.0, cosine_weight=1.0)
    inputs = collate(rows[:6])
    loss, embeddings = trainer.level_loss(model.eval(), inputs, 0, trainer.prepare_step(model, inputs))
    assert embeddings.shape == (6, 16)
    torch.testing.assert_close(loss, cosine_distillation_loss(embeddings, inputs["embedding"][:, :16]))


def test_training_brings_every_level_closer_and_keeps_the_full_one(tmp_path):
    model = make_model()
    rows = make_rows(model)
    trainer = make_trainer(model, tmp_path, rows, max_steps=90, prefix_weight=0.0, learning_rate=1e-3)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    for level in model.config.levels[:2]:
        assert after[f"eval_loss_{level}"] < 0.6 * before[f"eval_loss_{level}"]
    assert after["eval_loss_w1.0-h4-d3"] < 0.6 * after["eval_loss_w0.5-h4-d1"]
    logged = {name for entry in trainer.state.log_history for name in entry}
    assert {f"loss_{level}" for level in model.config.levels} <= logged


def test_a_resumed_run_ends_with_the_same_weights(tmp_path):
    rows = make_rows(make_model())
    whole = make_trainer(make_model(), tmp_path / "whole", rows)
    whole.train()
    make_trainer(make_model(), tmp_path / "cut", rows, save_strategy="steps", save_steps=4).train()
    for step in (4, 8):  # in the first epoch and in the second
        second = make_trainer(make_model(), tmp_path / f"again-{step}", rows)
        second.train(resume_from_checkpoint=str(tmp_path / "cut" / f"checkpoint-{step}"))
        for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_bad_weights_are_refused():
    with pytest.raises(ValueError, match="must not be negative, and one of the first two must be positive"):
        DeltaEmbeddingTrainingArguments(use_cpu=True, cosine_weight=0.0, relational_weight=0.0)
    with pytest.raises(ValueError, match="temperature must be positive, but is 0"):
        DeltaEmbeddingTrainingArguments(use_cpu=True, temperature=0)


def test_relational_distillation_asks_for_the_same_neighbours_at_any_width():
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(6, 16, generator=generator)
    rotation = torch.linalg.qr(torch.randn(16, 16, generator=generator))[0]
    assert relational_distillation_loss(targets @ rotation * 3, targets).abs() < 1e-5
    padded = F.pad(targets, (0, 4))
    assert relational_distillation_loss(padded, targets).abs() < 1e-5
    assert relational_distillation_loss(targets.flip(0), targets) > 0.1
    assert relational_distillation_loss(targets[:1], targets[:1]) == 0
