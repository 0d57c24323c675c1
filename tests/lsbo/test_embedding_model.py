"""A model of what points decode to."""

import numpy as np
import pytest
import torch

from hf_matryoshka import MatryoshkaFunnelConfig, MatryoshkaFunnelModel
from hf_matryoshka.lsbo.embedding_model import fit_embedding_surrogate
from hf_matryoshka.lsbo.search_space import SearchSpace
from hf_matryoshka.lsbo.staged_lsbo import StagedLSBO
from hf_matryoshka.lsbo.surrogates import fit_surrogate

from .lsbo_spaces import QUICK, SIZES


@pytest.fixture(scope="module")
def bent():
    """The latent of a funnel whose decoder is far from linear."""
    torch.manual_seed(0)
    funnel = MatryoshkaFunnelModel(MatryoshkaFunnelConfig(embedding_dim=8, matryoshka_dims=[2, 4], **SIZES))
    for parameter in funnel.parameters():
        parameter.data.add_(0.7 * torch.randn_like(parameter))
    return SearchSpace(funnel)


def points(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 4)).clip(-3, 3)


def cosines(space, rows):
    """To one embedding: linear in what is decoded, and not in the point."""
    target = space.decode(np.array([[1.0, -1.5, 0.5, 0.8]]))[0]
    return torch.from_numpy(space.decode(rows) @ target).double()


def test_what_a_decoder_bends_need_not_be_learnt(bent):
    """The error of both models for points that they have not seen."""
    known, new = points(24), points(200, seed=1)
    values, expected = cosines(bent, known), cosines(bent, new)
    cube, asked = (bent.to_unit(torch.from_numpy(rows)) for rows in (known, new))
    embeddings = bent.embed(torch.from_numpy(known)).detach()
    ours = fit_embedding_surrogate(embeddings, values, lambda rows: bent.embed(bent.from_unit(rows)))
    errors = [
        (model.posterior(asked).mean.detach().reshape(-1) - expected).square().mean().sqrt()
        for model in (ours, fit_surrogate(cube, values))
    ]
    assert errors[0] < 0.3 * errors[1]
    again = fit_embedding_surrogate(embeddings, values, ours.input_transform.decode, like=ours)
    assert torch.equal(again.covar_module.lengthscale, ours.covar_module.lengthscale)
    assert torch.allclose(again.posterior(asked).mean, ours.posterior(asked).mean)


def test_embeddings_are_differentiated(bent):
    rows = torch.from_numpy(points(3)).requires_grad_()
    (slope,) = torch.autograd.grad(bent.embed(rows)[:, 0].sum(), rows)
    step = torch.zeros(4, dtype=torch.float64)
    step[1] = 1e-2
    moved = (bent.embed(rows + step) - bent.embed(rows - step))[:, 0] / 2e-2
    assert torch.allclose(slope[:, 1], moved, atol=1e-2)
    assert bent.embed(rows.reshape(3, 1, 4)).shape == (3, 1, 8)
    np.testing.assert_allclose(bent.embed(rows).detach(), bent.decode(points(3)), atol=1e-6)


@pytest.mark.parametrize("mode", ["nested", "frozen", "full"])
def test_a_point_is_found_through_a_bent_decoder(bent, mode):
    """A block is modelled behind the blocks before it, and in front of zeros."""
    run = StagedLSBO(bent, maximize=True, mode=mode, trials=24, initial=8, acquisition=QUICK)
    assert run.surrogate == "embeddings"
    target = bent.decode(np.array([[1.0, -1.5, 0.5, 0.8]]))[0]
    best = run.optimize(lambda embedding: float(embedding @ target), progress=False)
    problem = run._problem(run.stage, [], None)
    asked = bent.to_unit(torch.from_numpy(best.coordinates))[None, problem.low : problem.width]
    seen = problem.model.transform_inputs(asked).detach()
    np.testing.assert_allclose(seen, best.embedding[None], atol=1e-5)
    by = {kind: [trial.value for trial in run.trials if trial.origin == kind] for kind in ("random", "model")}
    assert best.origin == "model" and np.median(by["model"]) > np.median(by["random"])


def test_a_trust_region_holds_a_model_of_embeddings(bent):
    run = StagedLSBO(bent, maximize=True, trust_region=True, trials=10, initial=6, budgets=[8, 2], acquisition=QUICK)
    for trial in run.ask(6):
        run.tell(trial, float(trial.coordinates[0]))
    run.region.length = 0.05
    (trial,) = run.ask(1)
    least, most = run._box(run._problem(run.stage, [], None))[1].numpy()
    row = bent.to_unit(torch.from_numpy(trial.coordinates)).numpy()[:2]
    assert (row >= least[:2] - 1e-9).all() and (row <= most[:2] + 1e-9).all()
