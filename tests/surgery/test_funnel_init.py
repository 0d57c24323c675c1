import numpy as np
import pytest
import torch

from hf_matryoshka import MatryoshkaFunnelConfig, choose_gates, init_funnel
from hf_matryoshka.evaluation.reconstruction import linear_codes, reconstruction_cosines
from hf_matryoshka.surgery.funnel_gates import calibrate_spreads, fit_first_stage

from ..modeling.funnel_models import KINDS, SIZES


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def embeddings():
    rng = np.random.default_rng(0)
    spread = np.linspace(2, 0.2, 24)
    rows = rng.normal(size=(3000, 24)) * spread @ np.linalg.qr(rng.normal(size=(24, 24)))[0] + rng.normal(size=24)
    return (3 * unit(rows)).astype(np.float32)


@torch.no_grad()
def test_a_residual_funnel_starts_as_centred_pca(embeddings):
    model = init_funnel(embeddings, matryoshka_dims=[4, 8, 16], **SIZES)
    assert model.config.embedding_norm == pytest.approx(3, abs=1e-4)
    code, x = linear_codes(unit(embeddings))["pca"], embeddings[:200]
    latents = model.encode(torch.from_numpy(x))
    expected = torch.from_numpy(code.encode(unit(x), 16))
    # Principal components but for one factor (and the signs of the basis, which are the same here).
    factor = 1 / torch.from_numpy(code.encode(unit(embeddings), 1)).std()
    torch.testing.assert_close(latents, factor * expected, rtol=0, atol=0.02)
    for dim, found in zip((4, 8, 16), model.decode_levels(latents), strict=True):
        expected = 3 * unit(code.decode(code.encode(unit(x), dim)))
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


@torch.no_grad()
def test_a_flow_starts_as_pca_of_the_tangent_space(embeddings):
    model = init_funnel(embeddings, kind="flow", matryoshka_dims=[4, 8, 16], **SIZES)
    x = torch.from_numpy(unit(embeddings))
    chart = model.funnel.chart
    torch.testing.assert_close(chart.origin, torch.nn.functional.normalize(x.mean(0), dim=0), rtol=0, atol=1e-5)
    torch.testing.assert_close(chart.basis @ chart.basis.T, torch.eye(23), rtol=0, atol=1e-5)
    assert (chart.basis @ chart.origin).abs().max() < 1e-5
    # Its density is that of a normal distribution with the full covariance of the tangent vectors.
    points, log_det = chart(x)
    covariance = torch.from_numpy(np.cov(points.double().numpy(), rowvar=False, bias=True))
    normal = torch.distributions.MultivariateNormal(points.double().mean(0), covariance)
    expected = normal.log_prob(points.double()) + log_det
    torch.testing.assert_close(model.log_likelihood(x).double(), expected, rtol=1e-4, atol=1e-2)
    points = chart(x)[0]
    torch.testing.assert_close(torch.cov(points.T), torch.eye(23), rtol=0, atol=2e-3)
    assert points.mean(0).abs().max() < 1e-3
    torch.testing.assert_close(chart.inverse(points), x, rtol=0, atol=1e-5)
    cosines = [(model.decode(model.encode(x, level)) * x / 3).sum(-1).mean() for level in range(3)]
    code = linear_codes(x.numpy())["pca"]
    rivals = [reconstruction_cosines(code.decode(code.encode(x.numpy(), dim)), x.numpy()).mean() for dim in (4, 8, 16)]
    assert all(abs(own - rival) < 0.03 for own, rival in zip(cosines, rivals, strict=True))


@torch.no_grad()
def test_a_flow_has_as_many_dimensions_as_the_embeddings_fill(embeddings):
    flat = embeddings @ np.linalg.qr(np.random.default_rng(1).normal(size=(24, 24)))[0][:, :20].astype(np.float32)
    wide = np.concatenate([flat, flat[:, :4]], axis=1)  # 24 coordinates, but only 20 directions
    model = init_funnel(wide, kind="flow", matryoshka_dims=[4, 8, 16], **SIZES)
    assert model.config.intrinsic_dim == 19
    x = torch.from_numpy(unit(wide))
    points = model.funnel.chart(x)[0]
    torch.testing.assert_close(torch.cov(points.T), torch.eye(19), rtol=0, atol=2e-3)
    torch.testing.assert_close(model.funnel.chart.inverse(points), x, rtol=0, atol=1e-5)
    assert init_funnel(wide, kind="flow", matryoshka_dims=[4], intrinsic_dim=10, **SIZES).config.flat_dim == 10


def test_the_same_seed_gives_the_same_funnel(embeddings):
    states = [
        init_funnel(embeddings, kind=kind, seed=seed, **SIZES).state_dict() for kind in KINDS for seed in (1, 1, 2)
    ]
    for start in (0, 3, 6):
        one, same, other = states[start : start + 3]
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert any(not torch.equal(one[name], other[name]) for name in one)


@torch.no_grad()
def test_gates_keep_every_level_at_least_at_pca(embeddings):
    model = init_funnel(embeddings[:2000], matryoshka_dims=[4, 8, 16], **SIZES)
    pca = choose_gates(model, embeddings[2000:])
    assert all(found["chosen"] == pytest.approx(found["pca"], abs=1e-6) for found in pca.values())
    # A decoder that only does harm at one level, and an encoder that does it everywhere.
    model.funnel.decoder.output.bias.normal_(0, 2, generator=torch.Generator().manual_seed(0))
    found = choose_gates(model, embeddings[2000:])
    assert [found[level]["decoder"] for level in model.config.levels] == [0, 0, 0] and found["d4"]["encoder"] == 1
    model.funnel.encoder.output.bias.normal_(0, 3, generator=torch.Generator().manual_seed(0))
    found = choose_gates(model, embeddings[2000:])
    assert model.funnel.encoder_gate == 0 and found["d8"]["chosen"] == pytest.approx(pca["d8"]["pca"], abs=1e-6)
    with pytest.raises(ValueError, match="kind 'cascade' has no gates"):
        choose_gates(init_funnel(embeddings, kind="cascade", **SIZES), embeddings)
    with pytest.raises(ValueError, match="there are none"):
        choose_gates(model, embeddings[:0])


@pytest.mark.parametrize("kind", ["residual", "cascade"])
@torch.no_grad()
def test_the_first_stage_gets_its_mean_and_spread(embeddings, kind):
    model = init_funnel(embeddings, kind=kind, matryoshka_dims=[4, 8], **SIZES)
    fit_first_stage(model, embeddings)
    coordinates = model.whiten(model.encode(torch.from_numpy(embeddings), 0))
    assert coordinates.mean(0).abs().max() < 1e-3 and (coordinates.std(0) - 1).abs().max() < 1e-3


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_spreads_are_those_of_held_out_embeddings(embeddings, kind):
    model = init_funnel(embeddings, kind=kind, matryoshka_dims=[4, 8], **SIZES)
    densities = model.funnel.densities
    densities.networks[0].output.bias.uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    held_out, rows = embeddings[2000:], torch.from_numpy(embeddings[2000:])
    latents = model.encode(rows)
    completed, decoded = model.complete(latents[:, :4], 4), model.decode(latents)
    before = (model.whiten(latents) ** 2).mean(0)
    calibrate_spreads(model, held_out)
    after = (model.whiten(latents) ** 2).mean(0)
    # As if PRIOR_ROWS = 100 further ones had shown that the old spreads are right.
    assert torch.allclose(after, before * 1100 / (1000 * before + 100), rtol=1e-2) and (before - 1).abs().max() > 0.5
    assert torch.equal(model.complete(latents[:, :4], 4), completed) and torch.equal(model.decode(latents), decoded)
    if kind == "flow":
        points = model.funnel.transform(torch.nn.functional.normalize(rows, dim=-1))[0]
        mean, log_std = model.funnel.rest(points[:, :8])
        errors = (((points[:, 8:] - mean) * torch.exp(-log_std)) ** 2).mean(0)
        assert (errors - 1).abs().max() < 0.1
    calibrated = model.whiten(latents)
    calibrate_spreads(model, held_out[:1])
    assert (model.whiten(latents) / calibrated - 1).abs().max() < 0.15  # one text says next to nothing


def test_bad_embeddings_are_refused(embeddings):
    with pytest.raises(ValueError, match=r"shape \(1, 24\) cannot start a funnel; give at least two vectors"):
        init_funnel(embeddings[:1])
    with pytest.raises(ValueError, match="have width 24, but the funnel takes 32"):
        init_funnel(embeddings, MatryoshkaFunnelConfig(embedding_dim=32))
    bad = embeddings.copy()
    bad[7, 0] = np.nan
    with pytest.raises(ValueError, match="embedding 7 holds NaN or infinity"):
        init_funnel(bad)
