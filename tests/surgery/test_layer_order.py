"""Choosing the layers of shallow budgets: those that matter, and the same function at full size."""

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from hf_matryoshka import order_layers_by_importance
from hf_matryoshka.data.base_models import DEFAULT_BASE_MODEL, resolve_base_model
from hf_matryoshka.modeling import DeltaBertModel

from ..modeling.delta_models import HEADS, make, outputs


TEXTS = ["a red fox", "the sun rose over the hills", "two", "rivers run to the sea and never fill it"] * 4


class Tokenizer:
    """Words as ids."""

    def __len__(self):
        return 99

    def __call__(self, texts, **kwargs):
        rows = [[3 + len(word) * 7 % 90 for word in text.split()][: kwargs["max_length"]] for text in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def make_idle(model, layers):
    """Layers that add nothing to the residual stream."""
    base = model.base_model
    for number in layers:
        layer = base.encoder.layer[number] if hasattr(base, "encoder") else base.layers[number]
        for name, parameter in layer.named_parameters():
            if "output.dense" in name or ".Wo." in name:
                parameter.data.zero_()
            elif "output.LayerNorm" in name:
                parameter.data.fill_(float(name.endswith("weight")))
    return model


@pytest.mark.parametrize("name", HEADS)
def test_layers_that_do_nothing_are_the_last_of_the_order(name, capsys):
    model = make_idle(make(name, [[1.0, 4, 2], [0.5, 4, 3], [1.0, 4, 5]]), (1, 3)).train()
    before = outputs(model.eval())
    model.train()
    order = order_layers_by_importance(model, TEXTS, Tokenizer(), batch_size=3)
    # 5 sets of 4 layers, then 4 in each of three, then 3; of a ModernBERT the first layer stays.
    count = 4 + 3 * 3 + 3 * 2 if "Modern" in name else 5 + 3 * 4 + 3 * 3
    assert f"Choosing layers: 100%|██████████| {count}/{count} " in capsys.readouterr().err
    assert model.training and model.config.layer_order == order and sorted(order) == [0, 1, 2, 3, 4]
    assert set(order[:3]) == {0, 2, 4}
    model.eval()
    assert torch.equal(outputs(model), before)
    assert model.config.level_sizes(1).layers == (0, 2, 4)
    # And nothing of the weights has moved.
    again = make_idle(make(name, [[1.0, 4, 2], [0.5, 4, 3], [1.0, 4, 5]]), (1, 3))
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name, first", [("DeltaBertModel", {2, 3, 4}), ("DeltaModernBertModel", {0, 3, 4})])
def test_the_first_layer_of_a_modernbert_is_always_run(name, first):
    model = make_idle(make(name, [[1.0, 4, 3], [1.0, 4, 5]]), (0, 1, 2) if "Modern" in name else (0, 1))
    assert set(order_layers_by_importance(model, TEXTS, Tokenizer(), beam=1)[:3]) == first


def test_what_cannot_be_ordered_is_said_and_nothing_changes():
    model = make("DeltaBertModel", "mixed")
    with pytest.raises(ValueError, match="the layers of the model differ in width.*; give the layer_order with the"):
        order_layers_by_importance(model, TEXTS, Tokenizer())
    model = make("DeltaBertModel", "stock")
    for options, message in (
        ({"beam": 0}, "beam is 0; give a number of at least 1"),
        ({"num_texts": 0}, "num_texts is 0"),
        ({"texts": []}, "texts is empty; give a list of texts"),
    ):
        with pytest.raises(ValueError, match=message):
            order_layers_by_importance(model, **{"texts": TEXTS, "tokenizer": Tokenizer(), **options})
    assert model.config.layer_order is None
    with pytest.raises(ValueError, match="BertModel has no budgets of depth; give a Delta encoder"):
        order_layers_by_importance(BertModel(BertConfig(**SMALL)), TEXTS, Tokenizer())
    # With one depth there is nothing to choose.
    same = make("DeltaBertModel", [[0.5, 4, 5], [1.0, 4, 5]])
    assert order_layers_by_importance(same, TEXTS, Tokenizer()) == [0, 1, 2, 3, 4]


SMALL = {"vocab_size": 99, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}


def test_minilm_needs_its_last_layers():
    folder = resolve_base_model(DEFAULT_BASE_MODEL)
    budgets = [[1.0, 12, 3], [1.0, 12, 4], [1.0, 12, 6]]
    model = DeltaBertModel.from_pretrained(folder, budgets=budgets, add_pooling_layer=False).eval()
    texts = ["A man plays a guitar.", "The cat sleeps on the mat.", "Rain is expected in the north tomorrow."] * 2
    order = order_layers_by_importance(model, texts, AutoTokenizer.from_pretrained(folder))
    # The first and the last two; without training a prefix of three layers has nothing of the embedding.
    assert model.config.level_sizes(0).layers == (0, 4, 5) and len(order) == 6
