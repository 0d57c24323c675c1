import torch

from hf_matryoshka.lsbo.surrogates import fit_surrogate


def data(count):
    points = torch.rand(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return points, (points * torch.tensor([4.0, 1.0, 0.0])).sin().sum(dim=-1)


def test_hyper_parameters_are_taken_from_another_model():
    points, values = data(24)
    fitted = fit_surrogate(points[:16], values[:16])
    taken = fit_surrogate(points, 10 * values, like=fitted)
    for (name, one), other in zip(taken.named_parameters(), fitted.parameters(), strict=True):
        assert torch.equal(one, other), name
    # Data and their scale are its own.
    assert torch.allclose(taken.posterior(points).mean.squeeze(-1), 10 * values, atol=0.2)


def test_a_model_with_other_hyper_parameters_is_fitted():
    points, values = data(16)
    noise = torch.full_like(values, 1e-4)
    known = fit_surrogate(points, values, variances=noise)
    assert len(list(fit_surrogate(points, values, like=known).named_parameters())) > len(list(known.parameters()))
