"""Growth: the same function in a larger model, all of which learns, and what cannot grow."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModel, BertConfig, BertModel, DistilBertConfig, DistilBertModel, ModernBertConfig

from hf_matryoshka.surgery.grow import grow
from hf_matryoshka.surgery.hierarchical_init import hierarchical_init

from ..modeling.delta_models import HEADS, make, outputs


FULL = [[1.0, 4, 5]]
# To 3/2 of the width, to a multiple of it, and without more of it.
GROWTHS = {
    "wider": {"hidden_size": 48, "intermediate_size": 60},
    "multiple": {"hidden_size": 64},
    "same": {"intermediate_size": 60},
    "deeper": {"num_hidden_layers": 7},
    "all": {"hidden_size": 40, "num_attention_heads": 5, "intermediate_size": 53, "num_hidden_layers": 6},
    "all_multiple": {"hidden_size": 96, "intermediate_size": 70, "num_hidden_layers": 6},
}
ENCODERS = ["DeltaBertModel", "DeltaModernBertModel"]


def small(name, kind="stock", budgets=FULL, **fields):
    model = make(name, budgets, **fields)
    return model.to_stock() if kind == "stock" else model


def difference(grown, model, **level):
    """Of the leading channels of the encoders' outputs."""
    before, after = (outputs(one.base_model, **kwargs) for one, kwargs in ((model, {}), (grown, level)))
    return (after[..., : before.shape[-1]] - before).abs().max().item()


@pytest.mark.parametrize("growth", GROWTHS)
@pytest.mark.parametrize("kind", ["stock", "delta"])
@pytest.mark.parametrize("name", ENCODERS)
def test_the_leading_channels_are_those_of_the_small_model(name, kind, growth):
    model = small(name, kind)
    grown = grow(model, **GROWTHS[growth])
    assert type(grown) is type(model) and not grown.training
    assert all(getattr(grown.config, size) == value for size, value in GROWTHS[growth].items())
    assert difference(grown, model) < 1e-5
    extra = outputs(grown)[..., 32:]
    if "multiple" in growth:
        assert torch.allclose(extra, outputs(grown)[..., :32].repeat(1, extra.shape[-1] // 32), atol=1e-5)
    else:
        assert (extra.abs() < 1e-5).all()


@pytest.mark.parametrize("growth", ["multiple", "deeper", "all_multiple"])
@pytest.mark.parametrize("name", [name for name in HEADS if "For" in name])
def test_heads_are_the_same_at_multiples(name, growth):
    model = small(name)
    assert torch.allclose(outputs(grow(model, **GROWTHS[growth], head="exact")), outputs(model), atol=2e-5)


@pytest.mark.parametrize("name", [name for name in HEADS if "For" in name])
def test_heads_at_other_widths(name):
    model = small(name)
    before, after = outputs(model), outputs(grow(model, **GROWTHS["wider"]))
    if name == "DeltaBertForSequenceClassification":
        assert torch.allclose(after, before, atol=1e-5)
        grow(model, **GROWTHS["wider"], head="exact")
    else:
        assert (after - before).std() < 0.2 * before.std()
        message = "has a norm after its activation, so at hidden_size 48 none computes the same; give a multiple of 32"
        with pytest.raises(ValueError, match=message):
            grow(model, **GROWTHS["wider"], head="exact")


@pytest.mark.parametrize("hidden_size", [48, 64])
@pytest.mark.parametrize("name", ["DeltaBertForMaskedLM", "DeltaModernBertForMaskedLM"])
def test_an_untied_decoder_grows_like_a_tied_one(name, hidden_size):
    model = small(name, tie_word_embeddings=False)
    grown = grow(model, hidden_size=hidden_size, intermediate_size=60)
    assert grown.get_output_embeddings().weight is not grown.get_input_embeddings().weight
    change = (outputs(grown) - outputs(model)).std() / outputs(model).std()
    assert change < (0.2 if hidden_size == 48 else 1e-5)


@pytest.mark.parametrize("name", ENCODERS)
def test_new_layers_lie_where_they_are_asked_for(name):
    model = small(name)
    places = [1, 2, 5]
    grown = grow(model, new_layers=places)
    assert grown.config.num_hidden_layers == 8 and difference(grown, model) < 1e-5
    both = grow(model, new_layers=places, num_hidden_layers=8, hidden_size=48, intermediate_size=60)
    assert difference(both, model) < 1e-5
    if name == "DeltaModernBertModel":
        old, new = model.config.layer_types, grown.config.layer_types
        assert [kind for place, kind in enumerate(new) if place not in places] == old
        # As the pattern of every third layer has it.
        assert [new[place] for place in places] == ["sliding_attention"] * 3
        assert grow(model, num_hidden_layers=7).config.layer_types == [*old, "sliding_attention"][:6] + [
            "full_attention"
        ]
        assert [layer.attention_type for layer in grown.layers] == new
    else:
        # The norm before a new layer, here that of the first one, gave its gains to the last of them.
        norms = [grown.encoder.layer[place].output.LayerNorm.weight for place in (0, 1, 2)]
        assert (norms[0] == 1).all() and (norms[1] == 1).all()
        assert torch.equal(norms[2], model.encoder.layer[0].output.LayerNorm.weight)
        assert difference(grow(model, new_layers=[0]), model) < 1e-5


@pytest.mark.parametrize("growth", ["wider", "multiple", "deeper", "all"])
@pytest.mark.parametrize("budgets", ["stock", "heads", "mixed", "ordered"])
@pytest.mark.parametrize("name", ENCODERS)
def test_every_level_of_a_nested_model_stays_a_level(name, budgets, growth):
    model = small(name, "delta", budgets)
    grown = grow(model, **GROWTHS[growth])
    old, new = model.config, grown.config
    count = len(old.levels)
    # A level that is the whole of the larger model, too, is there once.
    assert len(new.levels) in (count, count + 1) and new.budgets[-1] == [
        1.0,
        new.num_attention_heads,
        new.num_hidden_layers,
    ]
    for level in range(count):
        before, after = outputs(model, level), outputs(grown, min(level, len(new.levels) - 1))
        assert (after[..., :32] - before).abs().max() < 1e-5, old.levels[level]
        assert new.budget(level).heads >= old.budget(level).heads
    if growth == "wider" and budgets == "heads":
        more = 4 if name == "DeltaBertModel" else 0
        assert new.level_sizes(0).intermediate == (12 + more, 12 + more)
    if growth == "deeper" and budgets == "ordered":
        order = [0, 4, 5, 6, 2, 1, 3] if name == "DeltaBertModel" else [0, 4, 2, 1, 3, 5, 6]
        assert new.layer_order == order


def test_the_levels_may_be_others_and_a_config_says_all():
    model = small("DeltaModernBertModel", "delta")
    budgets = [[0.5, 4, 5], [1.0, 6, 6]]
    grown = grow(model, num_attention_heads=6, num_hidden_layers=6, intermediate_size=96, budgets=budgets)
    assert grown.config.levels == ("w0.5-h4-d5", "w1.0-h6-d6") and grown.config.hidden_size == 32
    assert (outputs(grown, 0) - outputs(model)).abs().max() < 1e-5
    again = grow(model, grown.config)
    assert again.config.budgets == budgets and difference(again, model) < 1e-5


@pytest.mark.parametrize("growth", ["all", "all_multiple"])
@pytest.mark.parametrize("name", ["DeltaBertForMaskedLM", "DeltaModernBertForMaskedLM"])
def test_all_of_it_learns(name, growth):
    model = small(name, norm_bias=True) if "Modern" in name else small(name)
    torch.manual_seed(0)
    # In float64 even the smallest step is one.
    grown = grow(model.double(), **GROWTHS[growth]).train()
    before = {key: parameter.detach().clone() for key, parameter in grown.named_parameters()}
    optimizer = torch.optim.SGD(grown.parameters(), lr=0.05)
    ids = torch.randperm(97)[:96].view(8, 12) + 1
    for _ in range(3):
        grown(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for key, parameter in grown.named_parameters():
        still = parameter.detach() == before[key]
        if "_embeddings" in key:  # positions that no text has
            still = still[1:12] if "position" in key else still[:1] if "token_type" in key else still[ids.flatten()]
        # A key has no gradient from its bias.
        assert "key.bias" in key or not still.any(), key


@pytest.mark.parametrize("name", ENCODERS)
def test_copies_of_a_channel_can_learn_different_things(name):
    grown = grow(small(name), hidden_size=64)
    for key, weight in grown.named_parameters():
        if weight.ndim == 2 and any(part in key for part in ("Wqkv", "Wi", "query", "intermediate")):
            assert (weight[:, :32] != weight[:, 32:]).float().mean() > 0.9, key


@pytest.mark.parametrize("growth", ["wider", "multiple"])
def test_the_biases_of_a_modernbert_grow(growth):
    model = small("DeltaModernBertModel", **dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias"), True))
    assert difference(grow(model, **GROWTHS[growth]), model) < 1e-5


def test_a_larger_tolerance_makes_smaller_gains():
    gains = {}
    for name, path in (("DeltaBertModel", "LayerNorm"), ("DeltaModernBertModel", "norm")):
        model = small(name)
        for tolerance in (2e-6, 2e-3):
            grown = grow(model, **GROWTHS["wider"], tolerance=tolerance)
            gains[tolerance] = grown.embeddings.get_submodule(path).weight[32:]
            assert difference(grown, model) < (1e-5 if tolerance == 2e-6 else 1e-2)
        assert gains[2e-3].abs().max() < gains[2e-6].abs().max() and gains[2e-6].sum().abs() < 1e-4
    # Even gains need none of it.
    even = small("DeltaModernBertModel")
    torch.nn.init.ones_(even.embeddings.norm.weight)
    assert torch.allclose(grow(even, hidden_size=48).embeddings.norm.weight.abs(), torch.tensor((2 / 3) ** 0.5))


def test_what_is_grown_is_a_model_like_the_small_one(tmp_path):
    model = small("DeltaBertForMaskedLM").train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    grown = grow(model.to(torch.float64), hidden_size=64, num_hidden_layers=6)
    assert grown.training and grown.dtype == torch.float64
    assert grown.get_output_embeddings().weight is grown.get_input_embeddings().weight
    assert all(torch.equal(value, state[key]) for key, value in model.float().state_dict().items())
    grown.float().eval().save_pretrained(tmp_path)
    assert torch.equal(outputs(AutoModel.from_pretrained(tmp_path)), outputs(grown.bert))
    bare = BertModel(BertConfig(**SMALL), add_pooling_layer=False)
    assert grow(bare, num_hidden_layers=2).pooler is None


SMALL = {"vocab_size": 99, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1, "intermediate_size": 8}
BERT, DELTA = ("DeltaBertModel", "stock"), ("DeltaModernBertModel", "delta")
REFUSED = [
    (BERT, {}, "there is nothing to grow; give hidden_size, num_hidden_layers or another size"),
    (BERT, {"hidden_size": 24}, "hidden_size 24 is smaller than that of the model, 32; a model can only grow"),
    (BERT, {"num_hidden_layers": 4}, "num_hidden_layers 4 is smaller than that of the model, 5"),
    (
        BERT,
        {"hidden_size": 36},
        "hidden_size 36 with 4 heads does not keep the width 8 of a head; give a hidden_size of 8",
    ),
    (BERT, {"hidden_size": 48, "num_attention_heads": 4}, "hidden_size 48 with 4 heads does not keep the width 8"),
    (DELTA, {"hidden_size": 35}, "hidden_size 35 is larger than 32 by an odd number.*; give 36, or a multiple"),
    (
        BERT,
        {"hidden_size": 48, "intermediate_size": 50},
        "intermediate_size 50 is too small: .* 4 feed-forward neurons",
    ),
    (BERT, {"new_layers": [7]}, r"new_layers \[7\] must be numbers from 0 to 5"),
    (DELTA, {"new_layers": [0]}, "must be numbers from 1 to 5, as the first layer of a ModernBERT has no norm"),
    (BERT, {"new_layers": [1], "num_hidden_layers": 7}, "new_layers has 1 numbers, but 2 layers are new"),
    (BERT, {"hidden_size": 64, "head": "some"}, "head 'some' does not exist; choose one of closest, exact"),
    (BERT, {"hidden_size": 64, "tolerance": 0}, "tolerance must be between 0 and 1, but is 0"),
    (BERT, {"hidden_size": 64, "budgets": [[1.0, 8, 5]]}, "BertModel has no budgets; give a Delta model"),
    (DELTA, {"num_hidden_layers": 6, "budgets": [[1.0, 4, 5]]}, "the last budget must be the full size"),
    (
        BERT,
        {"config": ModernBertConfig()},
        "config is a ModernBertConfig, but the model has a BertConfig; a model grows",
    ),
    (
        BERT,
        {"config": BertConfig(**SMALL, num_labels=3, max_position_embeddings=9)},
        "config has max_position_embeddings=9, but .* 64",
    ),
    (BERT, {"config": BertConfig(), "hidden_size": 64}, "give a config or sizes and budgets, not both"),
]


@pytest.mark.parametrize("kind, arguments, message", REFUSED)
def test_sizes_that_do_not_fit_are_said(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        grow(small(*kind), **arguments)


def test_models_that_cannot_grow_are_said():
    joint = small("DeltaBertModel", "delta", "joint")
    with pytest.raises(ValueError, match="with residual 'joint' a level normalises its own part"):
        grow(joint, hidden_size=64)
    assert difference(grow(joint, num_hidden_layers=6, intermediate_size=50), joint) < 1e-5
    norms = small("DeltaModernBertModel", "delta", "stock", budget_norms=True)
    with pytest.raises(ValueError, match="level_weight belongs to the levels and sizes that the model has"):
        grow(norms, hidden_size=64)
    distil = DistilBertModel(DistilBertConfig(vocab_size=99, dim=8, n_layers=1, n_heads=1, hidden_dim=8))
    with pytest.raises(
        ValueError, match="DistilBertModel cannot grow; give one of BertModel, .* or one of their Delta"
    ):
        grow(distil, num_hidden_layers=2)
    adapted = get_peft_model(small("DeltaBertModel"), LoraConfig(target_modules=["query"]))
    for model in (adapted, adapted.base_model.model):
        with pytest.raises(ValueError, match="has PEFT adapters, which have the small sizes; merge them first"):
            grow(model, hidden_size=64)
    quantised = small("DeltaBertModel")
    quantised.encoder.layer[1].output.dense = torch.nn.Identity()
    with pytest.raises(
        ValueError, match="encoder.layer.1.output.dense.weight is no floating-point weight of the shape"
    ):
        grow(quantised, hidden_size=64)
    odd = BertModel(BertConfig(**SMALL, hidden_act="tanh"))
    with pytest.raises(ValueError, match="hidden_act 'tanh' cannot pass numbers on, .* give a multiple"):
        grow(odd, hidden_size=48, intermediate_size=16)


SHAPES = {"mini": (32, 4, 2, 24), "base": (48, 6, 3, 36), "large": (64, 8, 4, 60)}


def checkpoint(name, size, kind="stock", **fields):
    hidden, heads, layers, intermediate = SHAPES[size]
    sizes = {"hidden_size": hidden, "num_attention_heads": heads, "num_hidden_layers": layers}
    sizes |= {"intermediate_size": intermediate, "full_intermediate_size": intermediate}
    return small(name, kind, [[1.0, heads, layers]], **{**sizes, **fields})


@pytest.mark.parametrize("gates", [False, True])
@pytest.mark.parametrize("sizes", [("mini", "base", "large"), ("mini", "base")])
@pytest.mark.parametrize("name", ENCODERS)
def test_the_levels_of_several_checkpoints_start_as_the_smallest(name, sizes, gates):
    models = [checkpoint(name, size, "delta" if size == "base" else "stock") for size in sizes]
    nested = hierarchical_init(models, gates=gates)
    assert type(nested).__name__ == name and nested.config.delta_gates == gates
    more = 4 if sizes[-1] == "base" and name == "DeltaBertModel" else 0
    first = (24 + more) / SHAPES[sizes[-1]][3]
    assert nested.config.budgets[0] == [first, 4, 2] and len(nested.config.levels) == len(sizes)
    before = outputs(models[0])
    for level in nested.config.levels:
        assert (outputs(nested, level)[..., :32] - before).abs().max() < 1e-5, level
    # The fifth and sixth head are the second checkpoint's, in the layers that it has.
    base = models[1].base_model
    for layer in range(3):
        if name == "DeltaBertModel":
            new, old = (one.encoder.layer[layer] for one in (nested, base))
            pairs = [
                (new.attention.self.value, old.attention.self.value),
                (new.attention.output.dense, old.attention.output.dense),
            ]
        else:
            new, old = nested.layers[layer], base.layers[layer]
            pairs = [(new.attn.Wqkv, old.attn.Wqkv), (new.attn.Wo, old.attn.Wo)]
        assert torch.equal(pairs[0][0].weight[32:48, :48], pairs[0][1].weight[32:48])
        written = pairs[1][0].weight[:48, 32:48]
        assert torch.equal(written, pairs[1][1].weight[:, 32:48] if gates else torch.zeros_like(written))
    if gates:
        opened = [parameter for key, parameter in nested.named_parameters() if key.endswith(".gate")]
        assert len(opened) == 2 * SHAPES[sizes[-1]][2]
        opened[0].data.fill_(0.5)
        assert not torch.allclose(outputs(nested)[..., :32], before, atol=1e-3)
        assert (outputs(nested, 0)[..., :32] - before).abs().max() < 1e-5


def test_the_levels_of_several_checkpoints_may_be_given():
    models = [checkpoint("DeltaModernBertForMaskedLM", size) for size in SHAPES]
    budgets = [[0.4, 4, 2], [0.5, 4, 3], [1.0, 8, 4]]
    nested = hierarchical_init(models, budgets)
    assert nested.config.levels == ("w0.4-h4-d2", "w0.5-h4-d3", "w1.0-h8-d4")
    assert torch.allclose(outputs(nested, 1), outputs(models[0]), atol=1e-5)
    with pytest.raises(ValueError, match="the smallest budget is .0.5, 4, 2., but must be the smallest checkpoint"):
        hierarchical_init(models, [[0.5, 4, 2], [1.0, 8, 4]])


@pytest.mark.parametrize(
    "name, fields, message",
    [
        ("DeltaModernBertModel", {}, "checkpoint 1 is a ModernBertModel, but the one before it a BertModel"),
        ("DeltaBertForMaskedLM", {}, "checkpoint 1 is a BertForMaskedLM, but .* BertModel; give .* the same head"),
        (
            "DeltaBertModel",
            {"vocab_size": 98},
            "checkpoint 1 has vocab_size 98, but the first has 99; .* one tokenizer",
        ),
        (
            "DeltaBertModel",
            {"num_hidden_layers": 1},
            "checkpoint 1 has num_hidden_layers 1, less than the 2 of the one",
        ),
        ("DeltaBertModel", {"num_attention_heads": 3}, "the heads of checkpoint 1 have width 16, but .* have 8"),
    ],
)
def test_checkpoints_that_are_no_family_are_said(name, fields, message):
    depth, heads = fields.get("num_hidden_layers", 3), fields.get("num_attention_heads", 6)
    second = small(
        name,
        budgets=[[1.0, heads, depth]],
        **{"hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 3, "intermediate_size": 48, **fields},
    )
    with pytest.raises(ValueError, match=message):
        hierarchical_init([checkpoint("DeltaBertModel", "mini"), second])
    with pytest.raises(ValueError, match="give two checkpoints or more, the smallest first"):
        hierarchical_init([second])


def test_layers_of_a_family_attend_alike():
    other = checkpoint("DeltaModernBertModel", "base", layer_types=["full_attention"] * 3)
    with pytest.raises(
        ValueError, match="the layers of checkpoint 1 attend as .*, which does not start like those of"
    ):
        hierarchical_init([checkpoint("DeltaModernBertModel", "mini"), other])
