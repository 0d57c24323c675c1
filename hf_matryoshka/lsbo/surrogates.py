"""Gaussian processes over points of the unit cube."""

import torch
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.map_saas import EnsembleMapSaasSingleTaskGP
from botorch.models.model import Model
from botorch.models.transforms.input import AffineInputTransform
from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
from gpytorch.kernels import LinearKernel
from gpytorch.mlls import ExactMarginalLogLikelihood


SURROGATES = ("rbf", "matern", "saas", "linear")
FIT_STEPS = 75


def fit_surrogate(
    points: torch.Tensor,
    values: torch.Tensor,
    kind: str = "rbf",
    variances: torch.Tensor | None = None,
    like: Model | None = None,
) -> Model:
    """A fitted model of an objective.

    Args:
        points (`torch.DoubleTensor` of shape `(n, dim)`): In the unit cube.
        values (`torch.DoubleTensor` of shape `(n,)`): They are standardised inside.
        kind (`str`, *optional*, defaults to `"rbf"`): `"rbf"` or `"matern"`, with a length scale a dimension whose
            prior grows with the root of their number (Hvarfner et al., arXiv 2402.02229); `"saas"`, an ensemble of
            such with sparse priors (Eriksson and Jankowiak, arXiv 2103.00349), at their most likely values;
            `"linear"`.
        variances (`torch.DoubleTensor` of shape `(n,)`, *optional*): Of the noise in each value; else one is fitted.
        like (`Model`, *optional*): A model whose hyper-parameters are taken instead of fitted, if it has the same.

    Returns:
        `botorch.models.model.Model`.

    Raises:
        ValueError: If there is no such kind.
    """
    if kind not in SURROGATES:
        raise ValueError(f"surrogate {kind!r} does not exist; choose one of {', '.join(SURROGATES)}")
    targets, noise = values[:, None], None if variances is None else variances[:, None]
    if kind == "saas":
        model: Model = EnsembleMapSaasSingleTaskGP(points, targets, noise)
    elif kind == "linear":
        # Around the centre of the cube, where the mean of the latents lies.
        dim = points.shape[1]
        centre = AffineInputTransform(dim, points.new_ones(dim), points.new_full((dim,), 0.5))
        model = SingleTaskGP(points, targets, noise, covar_module=LinearKernel(), input_transform=centre)
    else:
        kernel = get_covar_module_with_dim_scaled_prior(ard_num_dims=points.shape[1], use_rbf_kernel=kind == "rbf")
        model = SingleTaskGP(points, targets, noise, covar_module=kernel)
    return fit(model, like)


def fit(model: Model, like: Model | None = None) -> Model:
    """Gives a model the hyper-parameters of `like`, if it has the same ones, or the most likely ones; returns it."""
    known = {} if like is None else dict(like.named_parameters())
    if known and known.keys() == dict(model.named_parameters()).keys():
        model.load_state_dict(known, strict=False)
        return model.eval()
    # The last digits of the hyper-parameters are not worth most of the time.
    fit_gpytorch_mll(
        ExactMarginalLogLikelihood(model.likelihood, model), optimizer_kwargs={"options": {"maxiter": FIT_STEPS}}
    )
    return model
