"""Levels as dense layers."""

import pytest
import torch
from torch.nn import functional as F

from hf_matryoshka.hub.dense import dense_layers


KINDS = [
    ("mlp", {}),
    ("mlp", {"projection": True}),
    ("mlp", {"hidden_act": "gelu"}),
    ("mlp", {"hidden_act": "silu", "projection": True}),
    ("linear", {}),
    ("orthogonal", {}),
    ("orthogonal", {"projection": True}),
    ("permutation", {}),
]


@pytest.mark.parametrize("kind, kwargs", KINDS)
@pytest.mark.parametrize("level", ["d4", "d8", "d32", None])
def test_layers_compute_the_level(make_adaptor, kind, kwargs, level):
    model = make_adaptor(kind, **kwargs).train()
    layers = dense_layers(model, level)
    x = torch.randn(50, 32)
    y = x
    for weight, bias, activation in layers:
        y = activation(F.linear(y, weight, bias))
    model.eval()
    torch.testing.assert_close(F.normalize(y, dim=-1), model(x, level=level).embeddings, atol=1e-5, rtol=0)
    assert len(layers) == (2 if kind == "mlp" else 1)


def test_the_hidden_layer_holds_no_more_than_the_level_needs(make_adaptor):
    first, second = dense_layers(make_adaptor(intermediate_size=10), "d4")
    assert first.weight.shape == (10 + 2 * 4, 32)
    assert second.weight.shape == (4, 18)


def test_the_model_is_left_alone(make_adaptor):
    model = make_adaptor().double().train()
    assert dense_layers(model, "d8")[0].weight.dtype == torch.float32
    assert model.training and model.dtype == torch.float64


def test_other_activations_are_refused(make_adaptor):
    with pytest.raises(
        ValueError, match="hidden_act 'tanh' has no exact stock form, only 'relu', 'gelu', 'silu' have"
    ):
        dense_layers(make_adaptor(hidden_act="tanh"), "d8")


def test_unknown_level(make_adaptor):
    with pytest.raises(ValueError, match="level 'd5' does not exist"):
        dense_layers(make_adaptor(), "d5")
