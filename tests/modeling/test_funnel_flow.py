"""The densities of a flow are exact: checked against derivatives and integrals."""

import math

import pytest
import torch

from .funnel_models import embeddings, make


def log_det_by_derivative(model, x):
    """Of the map from a unit vector to its coordinates, over the surface of the sphere."""
    jacobian = torch.func.jacrev(lambda row: model.funnel.transform(row[None])[0][0])(x)
    # A basis of the tangent space at x.
    tangent = torch.linalg.svd(x[None])[2][1:]
    return torch.linalg.slogdet(jacobian @ tangent.T)[1]


def test_the_bijection_inverts_and_its_log_determinant_is_that_of_its_derivative():
    x = torch.nn.functional.normalize(embeddings().double(), dim=-1)
    model = make("flow").double()
    points, log_det = model.funnel.transform(x)
    torch.testing.assert_close(model.funnel.inverse(points), x, rtol=0, atol=1e-8)
    for row, found in zip(x, log_det, strict=True):
        torch.testing.assert_close(found, log_det_by_derivative(model, row), rtol=0, atol=1e-6)
    single = make("flow")
    points, _ = single.funnel.transform(x.float())
    torch.testing.assert_close(single.funnel.inverse(points), x.float(), rtol=0, atol=1e-4)


def test_a_flat_flow_has_the_log_determinant_of_its_derivative():
    x, model = embeddings().double(), make("flow", geometry="euclidean").double()
    points, log_det = model.funnel.transform(x)
    torch.testing.assert_close(model.funnel.inverse(points), x, rtol=0, atol=1e-8)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda row: model.funnel.transform(row[None])[0][0]))(x)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobians)[1], rtol=0, atol=1e-8)


@pytest.mark.parametrize("dims", [[1, 2], [1]])
@torch.no_grad()
def test_the_density_of_the_plane_integrates_to_one(dims):
    model = make("flow", embedding_dim=2, matryoshka_dims=dims, geometry="euclidean", noise=0.3).double()
    axis = torch.linspace(-45, 45, 1801, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    assert model.log_likelihood(grid).exp().sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=2e-3)


@torch.no_grad()
def test_the_density_of_the_sphere_integrates_to_one():
    model = make("flow", embedding_dim=3, matryoshka_dims=[1, 2], noise=0.2).double()
    # Spread around the origin that stays away from its antipode, where the chart ends.
    model.funnel.chart.scale.fill_(0.25)
    polar, turn = torch.linspace(0, math.pi, 801)[1:-1].double(), torch.linspace(0, 2 * math.pi, 401)[:-1].double()
    polar, turn = torch.meshgrid(polar, turn, indexing="ij")
    x = torch.stack([polar.cos(), polar.sin() * turn.cos(), polar.sin() * turn.sin()], dim=-1).reshape(-1, 3)
    area = polar.sin().reshape(-1) * (math.pi / 800) * (2 * math.pi / 400)
    assert (model.log_likelihood(x).exp() * area).sum() == pytest.approx(1, abs=5e-3)


@torch.no_grad()
def test_dropping_stages_leaves_the_density_of_the_prefix():
    """The sum rule: the density of a prefix is that of whole latents, summed over what follows."""
    model = make("flow", embedding_dim=3, matryoshka_dims=[1, 2], geometry="euclidean", noise=0.4).double()
    first = torch.tensor([[-0.7], [0.1], [1.3]], dtype=torch.float64)
    axis = torch.linspace(-40, 40, 4001, dtype=torch.float64)
    for row in first:
        whole = torch.cat([row.expand(4001, 1), axis[:, None]], dim=1)
        total = model.log_prob(whole).exp().sum() * (axis[1] - axis[0])
        assert total == pytest.approx(model.log_prob(row[None]).exp().item(), rel=1e-4)


@torch.no_grad()
def test_the_density_of_unit_vectors_is_bounded():
    """A density over the space around the sphere would grow without end where unit vectors meet."""
    model, x = make("flow").double(), embeddings(50).double()
    origin = model.funnel.chart.origin
    near = [model.log_likelihood(origin + share * x) for share in (1e-3, 1e-5, 1e-7)]
    assert (near[0] - near[2]).abs().max() < 0.5 and (near[1] - near[2]).abs().max() < 5e-3
    # Nor do the antipode, where the chart ends, and nearly flat embeddings have any other value than a number.
    x[:, 16:] *= 1e-3
    assert torch.isfinite(model.log_likelihood(torch.cat([x, -origin[None]]))).all()
