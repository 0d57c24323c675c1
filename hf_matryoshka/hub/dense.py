"""A level of an adaptor as plain dense layers."""

from typing import NamedTuple

import torch
from torch import nn

from ..modeling.modeling_matryoshka_adaptor import MatryoshkaAdaptorModel


# Activations with `act(z) - act(-z) = z`, through which a skip connection passes exactly.
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


class DenseLayer(NamedTuple):
    """`activation(weight x + bias)`.

    Args:
        weight (`torch.Tensor` of shape `(out_features, in_features)`): The matrix.
        bias (`torch.Tensor` of shape `(out_features,)`, *optional*): The shift.
        activation (`torch.nn.Module`): One of `ACTIVATIONS`, or `Identity`.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    activation: nn.Module


@torch.no_grad()
def dense_layers(model: MatryoshkaAdaptorModel, level: int | str | None = None) -> list[DenseLayer]:
    """Dense layers that compute a level exactly, up to the final normalisation.

    The linear kinds are one layer. An `"mlp"` is two if its activation is ReLU, GELU or SiLU: since
    `z = act(z) - act(-z)`, the skip connection `z = S x` goes through the hidden layer,
    `[W2, I, -I] act([W1; S; -S] x + [b1; 0; 0]) + b2`.

    Args:
        model ([`MatryoshkaAdaptorModel`]): The trained adaptor.
        level (`int` or `str`, *optional*): The level; the largest by default.

    Returns:
        `list[DenseLayer]`: One or two layers, in single precision on the CPU.

    Raises:
        ValueError: If the level does not exist or dense layers cannot compute it exactly.
    """
    config = model.config
    if config.kind == "mlp" and config.hidden_act not in ACTIVATIONS:
        raise ValueError(
            f"an adaptor with hidden_act {config.hidden_act!r} has no exact stock form, only "
            f"{', '.join(map(repr, ACTIVATIONS))} have one"
        )
    adaptor = model.cut(level).float().cpu().eval().adaptor
    dim = config.level_dim(level)
    if config.kind != "mlp":
        return [DenseLayer(adaptor(torch.eye(config.embedding_dim), dim).T.contiguous(), None, nn.Identity())]
    skip = torch.eye(dim, config.embedding_dim) if adaptor.projection is None else adaptor.projection.weight
    identity = torch.eye(dim)
    return [
        DenseLayer(
            torch.cat([adaptor.up.weight, skip, -skip]),
            torch.cat([adaptor.up.bias, torch.zeros(2 * dim)]),
            ACTIVATIONS[config.hidden_act](),
        ),
        DenseLayer(
            torch.cat([adaptor.down.weight, identity, -identity], dim=1), adaptor.down.bias.clone(), nn.Identity()
        ),
    ]
