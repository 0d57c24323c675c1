"""Linear layers of oneDNN give what those of torch give, and refuse what they cannot do."""

import copy

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from hf_matryoshka.modeling.nested_layers import NestedBlockLinear
from hf_matryoshka.modeling.onednn_layers import OneDnnLinear, with_onednn_linears
from hf_matryoshka.modeling.st_matryoshka_mamba import mamba_sentence_encoder

from . import delta_models
from .mamba_models import make, tokens


def test_a_level_of_a_mamba_encoder_is_the_same_and_its_model_left_alone():
    model, ids = make(), tokens()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for level in ("w0.25", "w1.0"):
        packed = with_onednn_linears(model.train(), level)
        assert not packed.training and not any(isinstance(one, torch.nn.Linear) for one in packed.modules())
        # Outside of no_grad, too: nothing of it has a gradient.
        expected = model.eval()(ids, level=level)
        torch.testing.assert_close(packed(ids).embeddings, expected.embeddings, atol=1e-6, rtol=0)
        torch.testing.assert_close(packed(ids).last_hidden_state, expected.last_hidden_state, atol=1e-5, rtol=0)
        state = packed.update(packed.new_state(len(ids)), ids)
        torch.testing.assert_close(packed.embed(state, 8), model(ids, level=level, matryoshka_dim=8).embeddings)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert with_onednn_linears(model).config.levels == model.config.levels


def test_a_sentence_encoder_is_the_same_at_its_level(tiny_sentence_transformer):
    tokenizer = AutoTokenizer.from_pretrained(tiny_sentence_transformer)
    encoder, texts = mamba_sentence_encoder(make(), tokenizer), ["a cat", "the river in the city"]
    packed = with_onednn_linears(encoder, "w0.5")
    np.testing.assert_allclose(packed.encode(texts), encoder.encode(texts, level="w0.5"), atol=1e-6)
    assert encoder[0].levels == ("w0.25", "w0.5", "w1.0") and packed[0].levels == ("w0.25", "w0.5")
    assert any(isinstance(module, torch.nn.Linear) for module in encoder.modules())


@pytest.mark.parametrize("name", ["DeltaBertForMaskedLM", "DeltaModernBertForSequenceClassification"])
def test_delta_encoders_and_stock_models_are_the_same(name):
    model = delta_models.make(name, "mixed")
    ids = torch.randint(5, 99, (2, 9), generator=torch.Generator().manual_seed(0))
    packed = with_onednn_linears(model, 1)
    torch.testing.assert_close(packed(ids).logits, model(ids, level=1).logits, atol=1e-5, rtol=0)
    stock = delta_models.make(name, "stock").to_stock(2)
    torch.testing.assert_close(with_onednn_linears(stock)(ids).logits, stock(ids).logits, atol=1e-5, rtol=0)


def test_a_layer_with_bias_and_blocks_keeps_shape_and_dtype():
    layer = NestedBlockLinear(6, 8, blocks=2)
    packed, input = OneDnnLinear(layer), torch.randn(2, 3, 5, 6)
    torch.testing.assert_close(packed(input, 4), layer(input))
    assert packed(input[:, :0]).shape == (2, 0, 5, 8)
    assert packed(input.bfloat16()).dtype == torch.bfloat16
    assert repr(packed) == "OneDnnLinear(in_features=6, out_features=8, bias=True)"
    # Attention of torch reads the weights of a subclass of its own.
    attention = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval()
    query = torch.randn(1, 3, 8)
    torch.testing.assert_close(
        with_onednn_linears(attention)(query, query, query)[0], attention(query, query, query)[0]
    )


def test_what_it_cannot_do_is_said():
    model, ids = make(), tokens()
    packed = with_onednn_linears(model, "w0.5")
    with pytest.raises(
        ValueError, match="computes 32 features of 32 and no smaller level, but was asked for 16 of 32"
    ):
        packed(ids, level="w0.25")
    with pytest.raises(RuntimeError, match="neither saved nor copied"):
        packed.state_dict()
    with pytest.raises(RuntimeError, match="neither saved nor copied"):
        copy.deepcopy(packed)
    with pytest.raises(ValueError, match="run the model under torch.no_grad"):
        packed.layers[0].mixer.z_proj(torch.randn(1, 32, requires_grad=True))
    with pytest.raises(ValueError, match="level 'w0.3' does not exist|no level"):
        with_onednn_linears(model, "w0.3")
    with pytest.raises(ValueError, match="a Linear has no levels, but level is 1"):
        with_onednn_linears(torch.nn.Linear(2, 2), 1)
    with pytest.raises(ValueError, match=r"in float32 on a CPU, but weight is torch.bfloat16 on cpu"):
        with_onednn_linears(torch.nn.Linear(2, 2, dtype=torch.bfloat16))
