import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hf_matryoshka.data.embedding_rows import EmbeddingRows, collate_rows
from hf_matryoshka.modeling.funnel_layers import normal_log_prob
from hf_matryoshka.surgery.funnel_init import init_funnel
from hf_matryoshka.trainers.funnel_arguments import FunnelTrainingArguments
from hf_matryoshka.trainers.funnel_trainer import FunnelTrainer
from hf_matryoshka.trainers.losses.embedding_distillation import relational_distillation_loss
from hf_matryoshka.trainers.losses.funnel import cascade_loss, progressive_decay, reconstruction_distance

from ..modeling.funnel_models import KINDS


SIZES = {"encoder_sizes": [64], "predictor_sizes": [16], "decoder_sizes": [64], "coupling_sizes": [32]}


@pytest.fixture(scope="module")
def embeddings():
    """On a curved surface of few dimensions, which networks see and PCA does not."""
    rng = np.random.default_rng(0)
    rows = np.sin(1.5 * rng.normal(size=(2000, 2)) @ rng.normal(size=(2, 24)) + rng.normal(size=24))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def trainer(embeddings, tmp_path, kind="residual", model=None, geometry="sphere", **options):
    settings = {"output_dir": str(tmp_path), "max_steps": 200, "per_device_train_batch_size": 64, "use_cpu": True}
    settings |= {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_steps": 20}
    model = model or init_funnel(embeddings, kind=kind, matryoshka_dims=[2, 4, 8], geometry=geometry, **SIZES)
    rows = EmbeddingRows(embeddings, np.arange(1800))
    held_out = EmbeddingRows(embeddings, np.arange(1800, 2000))
    return FunnelTrainer(
        model=model.train(),
        args=FunnelTrainingArguments(**{**settings, **options}),
        train_dataset=rows,
        eval_dataset=held_out,
        data_collator=collate_rows,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_level_learns_and_is_reported(embeddings, tmp_path, kind):
    run = trainer(embeddings, tmp_path, kind, cascade_weight=0.1, likelihood_weight=0.05, learning_rate=3e-3)
    before = run.evaluate()
    run.train()
    after = run.evaluate()
    for level in ("d2", "d4", "d8"):
        assert after[f"eval_loss_{level}"] < 0.97 * before[f"eval_loss_{level}"], level
    assert after["eval_likelihood"] < before["eval_likelihood"]
    logged = [entry for entry in run.state.log_history if "loss_d2" in entry]
    assert len(logged) == 10 and {"loss_d4", "loss_d8", "cascade", "likelihood"} <= set(logged[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("geometry", ["sphere", "euclidean"])
def test_the_loss_is_what_the_arguments_say(embeddings, tmp_path, kind, geometry):
    weights = {"reconstruction_weight": 2.0, "cascade_weight": 0.3, "likelihood_weight": 0.1}
    weights |= {"latent_penalty_weight": 0.01, "cascade_decay": 0.5, "prefix_weights": "linear"}
    weights |= {"relational_weight": 0.2, "decoded_relational_weight": 0.3, "temperature": 0.1}
    run = trainer(embeddings, tmp_path, kind, geometry=geometry, **weights)
    model, x = run.model, torch.from_numpy(embeddings[:32])
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    found = run.compute_loss(model, {"embeddings": x}).item()
    with torch.no_grad():
        z = model.encode(x)
        recon = [model.decode(z, active_dim=dim) for dim in (2, 4, 8)]
        if geometry == "sphere":
            losses = [1 - F.cosine_similarity(one, x).mean() for one in recon]
        else:
            losses = [F.mse_loss(one, x) for one in recon]
        expected = 2 * sum(weight * loss for weight, loss in zip((1, 2, 3), losses, strict=True)) / 6
        means = [model.complete(z, active_dim=dim)[:, dim : 2 * dim] for dim in (2, 4)]
        cascade = F.mse_loss(means[0], z[:, 2:4]) + 0.5 * F.mse_loss(means[1], z[:, 4:8])
        expected += 0.3 * cascade / 1.5
        log_prob, dim = (model.log_likelihood(x), 24) if kind == "flow" else (model.log_prob(z), 8)
        expected += -0.1 * log_prob.mean() / dim + 0.01 * 0.5 * (z**2).sum(-1).mean()
        near = [relational_distillation_loss(z[:, :dim], x, 0.1) for dim in (2, 4, 8)]
        expected += 0.2 * sum(near) / 3
        expected += 0.3 * sum(relational_distillation_loss(one, x, 0.1) for one in recon) / 3
    assert found == pytest.approx(expected.item(), rel=1e-4)


def test_latents_keep_neighbours_if_they_are_told_to(embeddings, tmp_path):
    x = torch.from_numpy(embeddings[1800:])
    found = {}
    for weight in (0.0, 0.3):
        run = trainer(embeddings, tmp_path, relational_weight=weight, learning_rate=3e-3)
        run.train()
        with torch.no_grad():
            latents = run.model.encode(x)
            found[weight] = [relational_distillation_loss(latents[:, :dim], x).item() for dim in (2, 4, 8)]
    assert all(told < 0.9 * free for told, free in zip(found[0.3], found[0.0], strict=True))


def test_accumulated_batches_give_the_trajectory_of_whole_ones(embeddings, tmp_path):
    losses = []
    for size, parts in ((16, 1), (4, 4)):
        run = trainer(
            embeddings,
            tmp_path,
            max_steps=5,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=parts,
            logging_steps=1,
            cascade_weight=0.1,
        )
        run.train()
        losses.append([entry["loss"] for entry in run.state.log_history if "loss_d2" in entry])
    assert losses[0] == pytest.approx(losses[1], abs=2e-5) and len(losses[0]) == 5


def test_terms_by_hand():
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    y = torch.tensor([[0.0, 3.0], [0.0, 1.0]])
    assert reconstruction_distance(y, x, sphere=True) == pytest.approx(0.5)
    assert reconstruction_distance(y, x, sphere=False) == pytest.approx((1 + 9 + 0 + 1) / 4)
    latents = torch.tensor([[9.0, 1.0, 2.0]], requires_grad=True)
    predictions = torch.tensor([[0.0, 0.0, 0.0]], requires_grad=True)
    loss = cascade_loss(latents, predictions, [1, 2, 3], 0.5)
    assert loss.item() == pytest.approx((1 + 0.5 * 4) / 1.5)
    loss.backward()
    assert latents.grad is None and predictions.grad[0, 0] == 0 and predictions.grad[0, 1] != 0
    assert cascade_loss(latents, predictions, [3], 0.5) == 0
    assert [progressive_decay(part) for part in (0, 0.3, 0.5, 0.7, 1)] == pytest.approx([1, 1, 0.75, 0.5, 0.5])
    found = normal_log_prob(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2), torch.tensor([[0.0, math.log(2)]]))
    normal = torch.distributions.Normal(torch.zeros(2), torch.tensor([1.0, 2.0])).log_prob(torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(found, normal.sum()[None])


def test_level_weights_of_the_prefixes(embeddings, tmp_path):
    assert trainer(embeddings, tmp_path).level_sampler.weights == [1, 1, 1]
    assert trainer(embeddings, tmp_path, prefix_weights="linear").level_sampler.weights == [1, 2, 3]
    root = trainer(embeddings, tmp_path, prefix_weights="sqrt").level_sampler.weights
    assert root == pytest.approx([1, math.sqrt(2), math.sqrt(3)])
    given = trainer(embeddings, tmp_path, prefix_weights="sqrt", level_weights=[3.0, 1.0, 1.0])
    assert given.level_sampler.weights == [3, 1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix_weights": "log"}, "prefix_weights 'log' does not exist; choose one of uniform, linear, sqrt"),
        ({"likelihood_weight": -1}, "no weight may be negative"),
        ({"relational_weight": 1, "temperature": 0}, "temperature must be above 0"),
        ({"reconstruction_weight": 0, "likelihood_weight": 0}, "at least one must be positive"),
        ({"cascade_decay": 0}, r"cascade_decay must be in \(0, 1\]"),
        ({"level_sampling": "random"}, "decodes all its levels at once"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        FunnelTrainingArguments(output_dir=str(tmp_path), **options)
