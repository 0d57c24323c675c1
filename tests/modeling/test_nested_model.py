"""What every nested model promises, tried on every kind of adaptor and on an encoder that is nested on two axes."""

import pytest
import torch
from transformers import BertForMaskedLM, BertModel

from .nested_models import HEADS, UNEVEN, is_orthogonal, make_adaptor, run


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cut_computes_what_the_level_computes(nested_model, dtype):
    nested_model.to(dtype)
    orthogonal = is_orthogonal(nested_model)
    # An orthogonal level is cut to a dense one, which adds up in another order.
    atol = 0 if not orthogonal else 1e-6 if dtype == torch.float32 else 2e-2
    for index, level in enumerate(nested_model.config.levels):
        small = nested_model.cut(level)
        assert small.config.levels == nested_model.config.levels[: index + 1]
        assert {parameter.dtype for parameter in small.parameters()} == {dtype}
        torch.testing.assert_close(run(small), run(nested_model, level), atol=atol, rtol=0)
        assert orthogonal or small.cost() == nested_model.cost(level)
        for parameter in small.parameters():
            assert parameter.is_contiguous() and parameter.untyped_storage().nbytes() == parameter.nbytes


def test_level_shapes_are_those_of_the_cut(nested_model):
    for level in nested_model.config.levels:
        expected = {name: tensor.shape for name, tensor in nested_model.cut(level).state_dict().items()}
        if is_orthogonal(nested_model):
            expected = {name: tensor.shape for name, tensor in nested_model.state_dict().items()}
        assert nested_model.level_shapes(level) == expected
    assert nested_model.level_shapes() == {name: tensor.shape for name, tensor in nested_model.state_dict().items()}


def test_a_cut_is_independent_of_its_model_and_of_the_random_state(nested_model):
    expected, state = run(nested_model), torch.get_rng_state()
    small = nested_model.train().cut(nested_model.config.levels[0])
    assert torch.equal(torch.get_rng_state(), state)
    assert small.training and not nested_model.eval().cut(0).training
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    assert torch.equal(run(nested_model), expected)
    assert (
        nested_model.config.levels[-1] == nested_model.cut().config.levels[-1] and len(nested_model.config.levels) == 3
    )


def test_buffers_and_ties_survive_a_cut(tiny_nested):
    model = tiny_nested.make("TinyNestedForMaskedLM")
    model.bert.embeddings.token_type_ids += 1
    small = model.cut(0)
    assert torch.equal(small.bert.embeddings.token_type_ids, model.bert.embeddings.token_type_ids)
    assert torch.equal(small.bert.embeddings.position_ids, model.bert.embeddings.position_ids)
    assert small.cls.predictions.decoder.weight is small.bert.embeddings.word_embeddings.weight
    assert small.cls.predictions.decoder.weight is not model.bert.embeddings.word_embeddings.weight
    assert torch.equal(run(small), run(model, 0))
    eager = tiny_nested.make(attn_implementation="eager").cut(0)
    assert eager.config._attn_implementation == "eager"


def test_a_model_without_memory_can_be_asked_and_cut(nested_model):
    with torch.device("meta"):
        empty = type(nested_model)(nested_model.config)
    for level in nested_model.config.levels:
        assert empty.level_shapes(level) == nested_model.level_shapes(level)
        assert empty.cost(level) == nested_model.cost(level)
        if not is_orthogonal(nested_model):
            assert {tensor.device.type for tensor in empty.cut(level).state_dict().values()} == {"meta"}


def test_every_level_of_the_encoder_is_a_stock_bert(tiny_nested):
    for name in HEADS:
        model = tiny_nested.make(name)
        for level in model.config.levels:
            stock = model.to_stock(level)
            assert type(stock).__module__ == "transformers.models.bert.modeling_bert"
            assert stock.config.model_type == "bert" and not hasattr(stock.config, "auto_map")
            mask = torch.tensor([[1, 1, 1, 0]])
            ids = torch.tensor([[3, 9, 27, 0]])
            expected = model(ids, attention_mask=mask, level=level)[0]
            assert torch.equal(stock(ids, attention_mask=mask)[0], expected)
    assert type(tiny_nested.make("TinyNestedForMaskedLM").to_stock(0)) is BertForMaskedLM


def test_uneven_layers_are_stock_only_when_filled_up(tiny_nested):
    model = tiny_nested.make(intermediate_sizes=UNEVEN)
    with pytest.raises(
        ValueError, match="layers of level f16-l2 have the feed-forward widths 8, 16, but those of BERT"
    ):
        model.to_stock(0)
    ids = torch.tensor([[3, 9, 27, 5]])
    for level in model.config.levels:
        stock = model.to_stock(level, padded=True)
        assert type(stock) is BertModel
        assert stock.config.intermediate_size == max(model.config.level_sizes(level))
        assert torch.allclose(stock(ids)[0], model(ids, level=level)[0], atol=1e-6)


def test_why_there_is_no_stock_form(tiny_nested):
    with pytest.raises(ValueError, match="^MatryoshkaAdaptorModel has no stock counterpart in transformers$"):
        make_adaptor("linear").to_stock("d4", padded=True)
    with pytest.raises(ValueError, match="output_scale 0.5 multiplies the hidden states"):
        tiny_nested.make(output_scale=0.5).to_stock(0)


def test_an_unknown_level_is_refused_everywhere(nested_model):
    for ask in (nested_model.cut, nested_model.cost, nested_model.level_shapes, nested_model.config.cut):
        with pytest.raises(ValueError, match="level 'x1' does not exist; choose one of"):
            ask("x1")
