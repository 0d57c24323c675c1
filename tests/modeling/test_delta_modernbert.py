"""What only the Delta ModernBERT has: fused projections, two kinds of attention, the shapes of its checkpoints."""

import json
from pathlib import Path

import pytest
import torch
from transformers import ModernBertConfig, ModernBertForMaskedLM
from transformers.masking_utils import (
    create_bidirectional_mask,
    create_bidirectional_sliding_window_mask,
    packed_sequence_mask_function,
)

from hf_matryoshka import DeltaModernBertConfig, DeltaModernBertForMaskedLM, DeltaModernBertModel
from hf_matryoshka.modeling.nested_layers import NestedBlockLinear

from .delta_models import STOCK, inputs, make, outputs


# Layers, hidden size, heads, intermediate size and parameters with the masked-language-modeling head.
SHAPES = {
    "ettin-17m": (7, 256, 4, 384, 16_913_600),
    "ettin-68m": (19, 512, 8, 768, 68_457_664),
    "modernbert-base": (22, 768, 12, 1152, 149_655_232),
    "modernbert-large": (28, 1024, 16, 2624, 395_881_664),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_real_shapes_have_the_tensors_of_modernbert(shape, tmp_path):
    layers, hidden, heads, columns, parameters = SHAPES[shape]
    sizes = {"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads}
    # As on the Hub, with the older names of some fields.
    older = {"model_type": "modernbert", "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0}
    fields = {**older, **sizes, "intermediate_size": columns, "local_rope_theta": 10000.0, "reference_compile": None}
    Path(tmp_path, "config.json").write_text(json.dumps(fields))
    config = DeltaModernBertConfig.from_pretrained(tmp_path, residual="joint")
    with torch.device("meta"):
        model = DeltaModernBertForMaskedLM(config)
        stock = ModernBertForMaskedLM(ModernBertConfig.from_pretrained(tmp_path))
    ours, theirs = ({k: t.shape for k, t in m.state_dict().items()} for m in (model, stock))
    assert ours == theirs and config.layer_types == stock.config.layer_types
    assert config.rope_parameters == stock.config.rope_parameters
    assert model.cost()["parameters"] == parameters
    assert config.head_dim == 64 and config.level_sizes(0).hidden == hidden // 2


def test_a_fused_layer_cuts_each_of_its_blocks():
    layer = NestedBlockLinear(6, 12, blocks=3)
    x = torch.randn(5, 6)
    whole = layer(x).view(5, 3, 4)
    torch.testing.assert_close(layer(x, 2), whole[:, :, :2].flatten(1))
    torch.testing.assert_close(layer(x, 4), whole.flatten(1))
    narrow = torch.nn.functional.linear(x[:, :4], layer.weight[:, :4], layer.bias).view(5, 3, 4)
    torch.testing.assert_close(layer(x[:, :4], 1), narrow[:, :, 0])
    layer(x, 2).sum().backward()
    assert (layer.weight.grad.view(3, 4, 6).abs().sum((0, 2)) > 0).tolist() == [True, True, False, False]
    bare = NestedBlockLinear(6, 4, blocks=2, bias=False)
    assert bare(x, 1).shape == (5, 2)


def test_a_cut_takes_the_heads_of_query_key_and_value_and_the_columns_of_both_halves():
    model = make("DeltaModernBertModel", "heads")
    small, level = model.cut(0), model.config.level_sizes(0)
    for index, columns in enumerate(level.intermediate):
        full, cut = model.layers[index], small.layers[index]
        assert torch.equal(cut.attn.Wqkv.weight, full.attn.Wqkv.weight.view(3, 4, 8, 32)[:, :1].reshape(24, 32))
        assert torch.equal(cut.mlp.Wi.weight, full.mlp.Wi.weight.view(2, 48, 32)[:, :columns].reshape(-1, 32))
        assert cut.mlp.Wo.weight.shape == (32, columns)


def test_shards_by_level_hold_each_value_once(tmp_path):
    model = make("DeltaModernBertForMaskedLM", "heads", attention_bias=True, mlp_bias=True)
    model.save_pretrained(tmp_path, shard_by_level=True)
    index = json.loads(Path(tmp_path, "model.safetensors.index.json").read_text())
    fused = [f"model.layers.{i}.{n}" for i in range(5) for n in ("attn.Wqkv", "mlp.Wi")]
    assert index["level_shards"]["blocks"] == sorted(f"{n}.{kind}" for n in fused for kind in ("weight", "bias"))
    stored = sum(shard["size"] for shard in index["level_shards"]["shards"].values())
    assert stored < index["metadata"]["total_size"] + 60_000  # headers
    sizes = [shard["size"] for shard in index["level_shards"]["shards"].values()]
    assert len(sizes) == 3 and sizes[0] < sum(sizes) / 2
    for level in model.config.levels:
        loaded = DeltaModernBertForMaskedLM.from_pretrained(tmp_path, level=level)
        assert torch.equal(outputs(loaded), outputs(model.cut(level)))


@pytest.mark.parametrize("name", [name for name in STOCK if "Modern" in name])
@pytest.mark.parametrize("budgets", ["heads", "joint-mixed"])
def test_biases_and_pooling_are_those_of_modernbert(name, budgets):
    switches = {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True}
    model = make(name, budgets, **switches, decoder_bias=False, classifier_pooling="mean")
    for level in model.config.levels:
        stock = model.to_stock(level, padded=True)
        assert (outputs(stock) - outputs(model, level)).abs().max() <= 1e-5
        alone = {"input_ids": inputs()["input_ids"]}
        torch.testing.assert_close(model(**alone, level=level)[0], stock(**alone)[0], atol=1e-5, rtol=0)


def test_sliding_attention_sees_its_window_only_at_every_level():
    sliding = {"num_hidden_layers": 2, "layer_types": ["sliding_attention"] * 2}
    model = make("DeltaModernBertModel", [[0.5, 2, 2], [1.0, 4, 2]], **sliding)
    ids = torch.randint(3, 99, (1, 40), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[0, 0] = 5
    for kind in ("eager", "sdpa"):
        model.set_attn_implementation(kind)
        for level in model.config.levels:
            change = (model(ids, level=level)[0] - model(other, level=level)[0]).abs().amax(-1)[0]
            # Two layers of three tokens to each side.
            assert change[6] > 0 and not change[7:].any()
    # What flash attention, which has no mask, goes by.
    stock = model.to_stock()
    assert [layer.attn.sliding_window for layer in model.layers] == [
        layer.attn.sliding_window for layer in stock.layers
    ]


def test_cost_of_long_texts_grows_with_the_layers_that_see_all_of_them():
    model = make("DeltaModernBertModel", "heads")
    kinds = model.config.layer_types
    assert kinds == ["full_attention", "sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
    for level, heads, layers in zip(model.config.levels, (1, 3, 4), (1, 2, 2), strict=True):
        short, long = (model.cost(level, sequence_length=length)["macs"] for length in (100, 300))
        assert long - short == 2 * 8 * heads * layers * 200
    # A window of three tokens to each side.
    assert model.cost(0, 7)["macs"] - model.cost(0, 5)["macs"] == 2 * 8 * 2 * 2
    assert model.cost(0, 8)["macs"] - model.cost(0, 7)["macs"] == 2 * 8


def test_ready_masks_keep_packed_documents_apart_at_every_level():
    model = make("DeltaModernBertModel", "joint")
    lengths, ids = (7, 20, 13), torch.randint(3, 99, (1, 40), generator=torch.Generator().manual_seed(0))
    documents = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))[None]
    for level in model.config.levels:
        width = model.config.level_sizes(level).hidden
        arguments = {"config": model.config, "inputs_embeds": torch.zeros(1, 40, width), "attention_mask": None}
        apart = {"and_mask_function": packed_sequence_mask_function(documents)}
        masks = {
            "full_attention": create_bidirectional_mask(**arguments, **apart),
            "sliding_attention": create_bidirectional_sliding_window_mask(**arguments, **apart),
        }
        packed = model(ids, attention_mask=masks, level=level)[0]
        alone = [model(part, level=level)[0] for part in ids.split(lengths, dim=1)]
        assert (packed - torch.cat(alone, dim=1)).abs().max() <= 1e-5
        assert (packed - model(ids, level=level)[0]).abs().max() > 0.1


def test_sparse_prediction_computes_the_labelled_positions_only():
    sparse, dense = (make("DeltaModernBertForMaskedLM", sparse_prediction=value) for value in (True, False))
    labels = inputs()["input_ids"].clone()
    labels[:, ::3] = -100
    for level in sparse.config.levels:
        few, all_ = (model(**inputs(), labels=labels, level=level) for model in (sparse, dense))
        torch.testing.assert_close(few.loss, all_.loss)
        torch.testing.assert_close(few.logits, all_.logits[labels != -100])


def test_rotary_frequencies_stay_exact_when_the_model_is_cast():
    model = make("DeltaModernBertModel", "heads")
    exact = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for cast in (model.to(torch.bfloat16), model.cut(0), model.half(), model.float()):
        for name, buffer in cast.named_buffers():
            assert torch.equal(buffer, exact[name])


def test_initial_weights_are_spread_as_in_modernbert():
    config = ModernBertConfig(vocab_size=400, hidden_size=64, num_attention_heads=2, pad_token_id=0)
    config.num_hidden_layers, config.layer_types, config.intermediate_size = 3, config.layer_types[:3], 96
    fields = {name: value for name, value in config.to_dict().items() if name != "model_type"}
    torch.manual_seed(0)
    stock, ours = ModernBertForMaskedLM(config), DeltaModernBertForMaskedLM(DeltaModernBertConfig(**fields))
    for name, tensor in stock.state_dict().items():
        other = ours.state_dict()[name]
        torch.testing.assert_close(other.std(), tensor.std(), rtol=0.15, atol=1e-6)
    assert isinstance(ours.model, DeltaModernBertModel)
