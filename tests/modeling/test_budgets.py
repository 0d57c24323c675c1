"""The vocabulary of budgets, and what a config of budgets promises."""

import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import AutoConfig, BertConfig, ModernBertConfig

from hf_matryoshka import DeltaBertConfig, DeltaModernBertConfig
from hf_matryoshka.modeling.budgets import Budget

from .delta_models import BUDGETS, make, make_config, outputs


REFUSED = (ValueError, StrictDataclassClassValidationError)
CONFIGS = [DeltaBertConfig, DeltaModernBertConfig]
NAMES = ["DeltaBertModel", "DeltaModernBertModel"]


def test_a_budget_has_a_name_and_an_order():
    small, large = Budget.parse([0.5, 6, 6]), Budget.parse([1, 12, 8])
    assert (small.name, large.name) == ("w0.5-h6-d6", "w1.0-h12-d8")
    assert small.fits_in(large) and small.fits_in(small) and not large.fits_in(small)
    mixed = Budget.parse([[0.5, 1.0, 0.25], 6, 3])
    assert (mixed.name, mixed.depth) == ("m0.5833-h6-d3", 3)
    assert not mixed.fits_in(small) and mixed.fits_in(large)
    assert Budget.parse([[0.5, 0.5], 6, 2]).name == "w0.5-h6-d2"


@pytest.mark.parametrize("config_class", CONFIGS)
def test_default_budgets_are_nested_and_stock_where_the_residual_stream_is_full(config_class):
    sizes = {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "intermediate_size": 3072}
    assert config_class(**sizes).levels == ("w0.5-h12-d6", "w0.75-h12-d9", "w1.0-h12-d12")
    joint = config_class(**sizes, residual="joint")
    assert joint.levels == ("w0.5-h6-d6", "w0.75-h9-d9", "w1.0-h12-d12")
    assert [joint.level_sizes(level).hidden for level in joint.levels] == [384, 576, 768]
    assert joint.level_sizes("w0.5-h6-d6").intermediate == (1536,) * 6
    tiny = config_class(hidden_size=8, num_attention_heads=1, num_hidden_layers=1, intermediate_size=4)
    assert tiny.levels == ("w0.5-h1-d1", "w0.75-h1-d1", "w1.0-h1-d1")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("budgets", BUDGETS)
def test_a_cut_config_keeps_its_levels_and_survives_json(name, budgets, tmp_path):
    config = make_config(name, budgets)
    for index, level in enumerate(config.levels):
        small = config.cut(level)
        assert small.levels == config.levels[: index + 1]
        whole, own = config.level_sizes(level), small.level_sizes()
        assert own.layers == tuple(range(config.budget(level).depth))
        assert (own.hidden, own.heads, own.intermediate) == (whole.hidden, whole.heads, whole.intermediate)
        assert small.num_hidden_layers == config.budget(level).depth
        small.save_pretrained(tmp_path / level)
        loaded = AutoConfig.from_pretrained(tmp_path / level)
        loaded.name_or_path = small.name_or_path
        assert type(loaded) is type(config) and loaded.to_dict() == small.to_dict()
        for inner in loaded.levels:
            assert loaded.level_sizes(inner).intermediate == config.level_sizes(inner).intermediate
            # The same layers, under their numbers in the cut model.
            found = [whole.layers[layer] for layer in loaded.level_sizes(inner).layers]
            assert found == list(config.level_sizes(inner).layers)
    assert config.to_dict() == make_config(name, budgets).to_dict()


@pytest.mark.parametrize("config_class", CONFIGS)
def test_a_budget_runs_the_first_layers_of_the_order(config_class):
    sizes = {"hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 4, "intermediate_size": 40}
    budgets = [[[0.25, 0.5], 1, 2], [0.5, 1, 3], [[1.0, 0.75, 0.5, 0.25], 1, 4]]
    config = config_class(**sizes, budgets=budgets, layer_order=[0, 3, 1, 2], full_intermediate_size=40)
    assert [config.level_sizes(level).layers for level in range(3)] == [(0, 3), (0, 1, 3), (0, 1, 2, 3)]
    # One width for each layer of the order.
    assert config.level_sizes(0).intermediate == (10, 20)
    assert config.level_sizes().intermediate == (40, 20, 10, 30)
    assert [layer.intermediate_size for layer in config.per_layer_config] == [40, 20, 10, 30]
    # The defaults are those shares of the widths that the layers have.
    config = config_class(**sizes, layer_order=[0, 3, 1, 2], per_layer_config={3: {"intermediate_size": 20}})
    assert config.level_sizes(0).intermediate == (20, 10) and config.level_sizes().intermediate == (40, 40, 40, 20)
    small = config.cut(1)
    assert small.layer_order == [0, 2, 1] and small.level_sizes(0).layers == (0, 2)
    for wrong in ([0, 1, 2], [0, 1, 2, 2], [0, 1, 2, 4], []):
        with pytest.raises(REFUSED, match=r"must have each of the layers 0 to 3 once"):
            config_class(**sizes, layer_order=wrong)


def test_the_first_layer_of_a_modernbert_stays_the_first():
    sizes = {"hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 3, "intermediate_size": 4}
    assert DeltaBertConfig(**sizes, layer_order=[2, 0, 1]).level_sizes(0).layers == (0, 2)
    with pytest.raises(REFUSED, match=r"layer_order \[2, 0, 1\] must start with 0: the first layer of a ModernBERT"):
        DeltaModernBertConfig(**sizes, layer_order=[2, 0, 1])
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    config = DeltaModernBertConfig(**sizes, layer_order=[0, 2, 1], layer_types=kinds)
    assert config.cut(0).layer_types == ["full_attention", "full_attention"]


def test_widths_are_rounded_to_the_nearest_column_and_are_at_least_one():
    sizes = {"hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 10}
    config = DeltaBertConfig(**sizes, budgets=[[0.01, 1, 1], [0.16, 1, 1], [0.24, 1, 1], [0.26, 1, 1], [1, 1, 1]])
    assert [config.level_sizes(level).intermediate for level in config.levels] == [(1,), (2,), (2,), (3,), (10,)]


def test_layers_of_different_width_are_the_native_per_layer_config():
    config = make_config("DeltaBertModel", "mixed")
    assert config.is_heterogeneous
    widths = [layer.intermediate_size for layer in config.per_layer_config]
    assert widths == list(config.level_sizes().intermediate) == [48, 24, 36, 12, 48]
    small = config.cut("m0.375-h1-d2")
    assert [layer.intermediate_size for layer in small.per_layer_config] == [12, 24]
    assert not config.cut(0).cut(0).to_dict()["per_layer_config"] == {}
    assert not make_config("DeltaBertModel", "heads").is_heterogeneous


@pytest.mark.parametrize("config_class", CONFIGS)
def test_a_per_layer_config_becomes_the_largest_budget(config_class):
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 4, "intermediate_size": 40}
    config = config_class(**sizes, per_layer_config={0: {"intermediate_size": 20}, "3": {"intermediate_size": 80}})
    assert config.level_sizes().intermediate == (20, 40, 40, 80)
    assert config.full_intermediate_size == 80
    assert config.level_sizes(0).intermediate == (10, 20) and len(config.levels) == 3
    assert config_class.from_dict(json.loads(config.to_json_string())).to_dict() == config.to_dict()
    for wrong in ({0: {"num_attention_heads": 2}}, {9: {"intermediate_size": 8}}):
        with pytest.raises(ValueError, match=r"it may set intermediate_size only, of the layers 0 to 3"):
            config_class(**sizes, per_layer_config=wrong)
    with pytest.raises(ValueError, match=r"per_layer_config has the widths \[20, 40, 40, 40\], but the last budget"):
        config_class(**sizes, per_layer_config={0: {"intermediate_size": 20}}, budgets=[[1.0, 4, 4]])


@pytest.mark.parametrize(
    "budgets, message",
    [
        ([], "budgets is empty"),
        ([[0.5, 4, 5], [0.25, 4, 5], [1.0, 4, 5]], "w0.25-h4-d5 is inside w0.5-h4-d5, which is listed before it"),
        ([[0.5, 4, 3], [1.0, 2, 5], [0.5, 2, 2], [1.0, 4, 5]], "w0.5-h2-d2 is inside w0.5-h4-d3, which is listed"),
        ([[0.5, 9, 5], [1.0, 4, 5]], "w0.5-h9-d5 is not inside the last one w1.0-h4-d5"),
        ([[0.5, 4, 6], [1.0, 4, 5]], "w0.5-h4-d6 is not inside the last one w1.0-h4-d5"),
        ([[1.0, 4, 2], [[1.0, 0.5, 1.0, 1.0, 1.0], 4, 5]], "w1.0-h4-d2 is not inside the last one m0.9-h4-d5"),
        ([[0.5, 4, 5], [0.5, 4, 5], [1.0, 4, 5]], "two budgets have the name w0.5-h4-d5"),
        ([[0.5, 4, 5]], r"the last budget must be the full size, \[1.0, 4, 5\], but is w0.5-h4-d5"),
        ([[0.5, 4, 5], [1.0, 4, 6]], r"the last budget must be the full size, \[1.0, 4, 5\], but is w1.0-h4-d6"),
        ([[0.5, 9, 5], [1.0, 9, 5]], "the last budget must be the full size"),
        ([[1.5, 4, 5]], r"budget \[1.5, 4, 5\] must have widths above 0 and up to 1"),
        ([[0.0, 4, 5], [1.0, 4, 5]], r"budget \[0.0, 4, 5\] must have widths above 0"),
        ([[1.0, 0, 5], [1.0, 4, 5]], "whole numbers of heads and layers, at least 1"),
        ([[1.0, 4]], r"budget \[1.0, 4\] must be \[width, heads, depth\]"),
        ([[[0.5, 1.0], 4, 5], [1.0, 4, 5]], "has 2 widths for 5 layers; give one number or one a layer"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_wrong_budgets_are_refused_in_one_sentence(name, budgets, message):
    with pytest.raises(REFUSED, match=message):
        make_config(name, budgets)


@pytest.mark.parametrize("name", NAMES)
def test_budgets_need_not_be_comparable_with_each_other(name, tmp_path):
    model = make(name, [[0.5, 4, 3], [0.5, 4, 5], [1.0, 2, 3], [1.0, 4, 4], [1.0, 4, 5]])
    levels = model.config.levels
    assert model.cut("w0.5-h4-d5").config.levels == ("w0.5-h4-d3", "w0.5-h4-d5")
    assert model.cut("w1.0-h2-d3").config.levels == ("w1.0-h2-d3",)
    assert model.cut("w1.0-h4-d4").config.levels == ("w0.5-h4-d3", "w1.0-h2-d3", "w1.0-h4-d4")
    for level in levels:
        small = model.cut(level)
        for inner in small.config.levels:
            assert torch.equal(outputs(small, inner), outputs(model, inner))
    model.save_pretrained(tmp_path)
    assert torch.equal(outputs(type(model).from_pretrained(tmp_path, level=2)), outputs(model, 2))
    with pytest.raises(ValueError, match="level w1.0-h2-d3 reads .* does not hold .* that the level before it reads"):
        model.save_pretrained(tmp_path / "sharded", shard_by_level=True)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_shapes_are_refused(name):
    with pytest.raises(REFUSED, match="residual 'half' does not exist; choose one of full, joint"):
        make_config(name, "heads", residual="half")
    with pytest.raises(REFUSED, match=r"hidden_size = head_dim \* heads, but 32 is not 16 \* 4; use residual 'full'"):
        make_config(name, "joint", head_dim=16)
    with pytest.raises(REFUSED, match="hidden_size 32 is no multiple of num_attention_heads 5; give head_dim"):
        make_config(name, None, num_attention_heads=5)
    assert make_config(name, None, num_attention_heads=5, head_dim=8).level_sizes().attention == 40
    with pytest.raises(REFUSED, match="level 'w0.3' does not exist; choose one of w0.25-h1-d2, "):
        make_config(name, "heads").level_sizes("w0.3")


def test_a_decoder_is_refused():
    with pytest.raises(REFUSED, match="a Delta BERT is an encoder"):
        DeltaBertConfig(is_decoder=True)


@pytest.mark.parametrize(
    "stock, config_class", [(BertConfig, DeltaBertConfig), (ModernBertConfig, DeltaModernBertConfig)]
)
def test_the_config_of_a_stock_model_is_one_of_ours(stock, config_class, tmp_path, caplog):
    stock(hidden_size=64, num_attention_heads=4, num_hidden_layers=4, intermediate_size=96).save_pretrained(tmp_path)
    config = config_class.from_pretrained(tmp_path)
    assert "You are using a model of type" not in caplog.text
    assert config.levels == ("w0.5-h4-d2", "w0.75-h4-d3", "w1.0-h4-d4") and config.head_dim == 16
    assert config.model_type == config.to_dict()["model_type"] == config_class.model_type
    # Arguments decide the defaults that follow from them, and are checked like all others.
    joint = config_class.from_pretrained(tmp_path, residual="joint")
    assert joint.levels == ("w0.5-h2-d2", "w0.75-h3-d3", "w1.0-h4-d4")
    chosen = config_class.from_pretrained(tmp_path, budgets=[[0.5, 2, 3], [1, 4, 4]])
    assert chosen.levels == ("w0.5-h2-d3", "w1.0-h4-d4")
    with pytest.raises(REFUSED, match="the last budget must be the full size"):
        config_class.from_pretrained(tmp_path, budgets=[[0.5, 2, 3]])
