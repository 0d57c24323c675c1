"""A model of embeddings instead of points: what a point is decoded to decides its value."""

from collections.abc import Callable

import torch
from botorch.models import SingleTaskGP
from botorch.models.model import Model
from botorch.models.transforms.input import InputTransform
from gpytorch.kernels import RBFKernel
from gpytorch.priors import LogNormalPrior
from torch import nn

from .surrogates import fit


EMBEDDINGS = "embeddings"
# Of the logarithm of the length scale: as wide as BoTorch's default.
PRIOR_SPREAD = 3**0.5


class Decoded(InputTransform, nn.Module):
    """What the model sees of a point.

    Args:
        decode (`Callable`): Takes points of the cube, `(..., dim)`, to embeddings, `(..., embedding_dim)`; it is
            differentiated.
    """

    transform_on_train = False
    transform_on_eval = True
    transform_on_fantasize = True

    def __init__(self, decode: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.decode = decode

    def transform(self, X: torch.Tensor) -> torch.Tensor:
        return self.decode(X)


def fit_embedding_surrogate(
    embeddings: torch.Tensor,
    values: torch.Tensor,
    decode: Callable[[torch.Tensor], torch.Tensor] | None = None,
    variances: torch.Tensor | None = None,
    like: Model | None = None,
) -> Model:
    """A Gaussian process over what points decode to, which is asked about points.

    An objective sees nothing but the embedding, so two points that decode alike have one value, and what a network
    bends need not be learnt again from values (the argument of Moss et al., arXiv 2507.03910, for structures). One
    length scale for all directions: the distance is that by which embeddings are compared.

    Args:
        embeddings (`torch.DoubleTensor` of shape `(n, embedding_dim)`): Of the observed points.
        values (`torch.DoubleTensor` of shape `(n,)`): They are standardised inside.
        decode (`Callable`, *optional*): As that of [`Decoded`], for the points that the model is asked about; without
            it, it is asked about embeddings.
        variances (`torch.DoubleTensor` of shape `(n,)`, *optional*): Of the noise in each value; else one is fitted.
        like (`Model`, *optional*): A model whose hyper-parameters are taken instead of fitted, if it has the same.

    Returns:
        `botorch.models.model.Model`.
    """
    # The typical distance of two of them.
    spread = (2 * embeddings.var(dim=0).sum()).sqrt().clamp_min(1e-6)
    kernel = RBFKernel(lengthscale_prior=LogNormalPrior(spread.log().item(), PRIOR_SPREAD))
    kernel.lengthscale = spread.item()
    noise = None if variances is None else variances[:, None]
    decoded = None if decode is None else Decoded(decode)
    return fit(SingleTaskGP(embeddings, values[:, None], noise, covar_module=kernel, input_transform=decoded), like)
