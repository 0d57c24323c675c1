import torch
from torch.nn import functional as F

from hf_matryoshka.modeling.nested_layers import NestedEmbedding, NestedLayerNorm, NestedLinear, NestedRMSNorm


def test_linear_uses_leading_rows_and_columns():
    layer = NestedLinear(6, 5)
    x = torch.randn(2, 4)
    expected = x @ layer.weight[:3, :4].T + layer.bias[:3]
    assert torch.allclose(layer(x, rows=3), expected, atol=1e-6)
    full = torch.randn(2, 6)
    assert torch.equal(layer(full), F.linear(full, layer.weight, layer.bias))


def test_linear_gradient_stays_inside_the_slice():
    layer = NestedLinear(6, 5, bias=False)
    layer(torch.randn(2, 4), rows=3).sum().backward()
    assert layer.weight.grad[:3, :4].abs().sum() > 0
    assert layer.weight.grad[3:].abs().sum() == 0 and layer.weight.grad[:, 4:].abs().sum() == 0


def test_embedding_reads_leading_columns():
    layer = NestedEmbedding(7, 6)
    ids = torch.tensor([[1, 3]])
    assert torch.equal(layer(ids, columns=2), layer.weight[ids][..., :2])
    assert layer(ids).shape == (1, 2, 6)


def test_norms_take_statistics_over_the_active_features():
    x = torch.randn(3, 4)
    layer_norm, rms_norm = NestedLayerNorm(6), NestedRMSNorm(6)
    torch.nn.init.normal_(layer_norm.weight)
    torch.nn.init.normal_(layer_norm.bias)
    expected = F.layer_norm(x, (4,), layer_norm.weight[:4], layer_norm.bias[:4], layer_norm.eps)
    assert torch.equal(layer_norm(x), expected)
    assert torch.allclose(rms_norm(x), x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt(), atol=1e-5)
    assert NestedLayerNorm(6, bias=False)(x).shape == (3, 4)
