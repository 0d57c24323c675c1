"""Scores of heads and neurons, checked against their definitions."""

import pytest
import torch
from transformers import BertConfig, BertForMultipleChoice

from hf_matryoshka import measure_importance
from hf_matryoshka.surgery.encoder_layers import encoder_layers

from ..modeling.delta_models import HEADS, STOCK, inputs, make


MASKED = ["DeltaBertForMaskedLM", "DeltaModernBertForMaskedLM"]


PARTS = ("heads", "neurons")


def parts(model):
    """What is scored, in the order of the layers: its kind, its layer, the units."""
    return [(kind, i, getattr(layer, kind)) for i, layer in enumerate(encoder_layers(model)) for kind in PARTS]


def labelled():
    batch = inputs()
    labels = batch["input_ids"].clone()
    labels[:, ::2] = -100
    return {**batch, "labels": labels.masked_fill(batch["attention_mask"] == 0, -100)}


def same(first, second, tolerance=1e-5):
    for name in PARTS:
        torch.testing.assert_close(getattr(first, name), getattr(second, name), atol=tolerance, rtol=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_activation_is_the_mean_size_of_a_contribution(name):
    model, batch = make(name, "mixed"), inputs()
    scores = measure_importance(model, [batch])
    seen = {}
    handles = [
        part.output.register_forward_pre_hook(lambda _, args, key=(kind, i): seen.update({key: args[0]}))
        for kind, i, part in parts(model)
    ]
    with torch.no_grad():
        model(**batch)
    for handle in handles:
        handle.remove()
    counts = []
    for kind, i, part in parts(model):
        hidden = seen[kind, i][batch["attention_mask"].bool()]
        width = hidden.shape[1] // part.count
        expected = [
            (hidden[:, u * width : (u + 1) * width] @ part.output.weight[:, u * width : (u + 1) * width].T)
            .norm(dim=-1)
            .mean()
            for u in range(part.count)
        ]
        actual = getattr(scores, kind)[i]
        torch.testing.assert_close(actual, torch.stack(expected), atol=1e-5, rtol=1e-4)
        counts.append(len(actual))
    assert counts == [n for size in model.config.level_sizes().intermediate for n in (4, size)]


@pytest.mark.parametrize("criterion", ["activation", "gradient"])
@pytest.mark.parametrize("name", MASKED)
def test_what_is_at_padding_and_how_texts_are_batched_does_not_matter(name, criterion):
    model, batch = make(name, "stock"), labelled()
    # As many labels in each text: the loss is a mean over labels.
    batch["labels"][0, 8:] = -100
    scores = measure_importance(model, [batch], criterion)
    junk = {**batch, "input_ids": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, 77)}
    same(scores, measure_importance(model, [junk], criterion))
    longer = {
        key: torch.nn.functional.pad(value, (0, 5), value=-100 if key == "labels" else 0)
        for key, value in batch.items()
    }
    same(scores, measure_importance(model, (b for b in [longer]), criterion))
    alone = [{key: value[i : i + 1] for key, value in batch.items()} for i in range(2)]
    same(scores, measure_importance(model, alone, criterion))
    # A loss that reads padding makes it no token either.
    everywhere = measure_importance(model, [{**batch, "attention_mask": torch.ones(2, 12)}], criterion)
    assert (everywhere.neurons[0] - scores.neurons[0]).abs().max() > 1e-4
    unmasked = {key: value for key, value in batch.items() if key != "attention_mask"}
    same(everywhere, measure_importance(model, [unmasked], criterion))


@pytest.mark.parametrize("name", MASKED)
def test_a_loss_on_padding_counts_real_tokens_only(name):
    model, batch = make(name, "stock"), inputs()
    batch["attention_mask"][:] = 1
    batch["attention_mask"][:, -1] = 0
    # Nothing but the padding is in the loss, and no other token attends to it.
    score = measure_importance(model, [batch], "gradient", loss_fn=lambda out: out.logits[:, -1].square().mean())
    assert score.neurons[-1].abs().max() == 0


@pytest.mark.parametrize("name", MASKED)
def test_gradient_is_that_of_a_mask(name):
    model, batch = make(name, "mixed"), labelled()
    scores = measure_importance(model, [batch], "gradient")
    masks, handles = {}, []
    for kind, i, part in parts(model):
        masks[kind, i] = torch.ones(2, 1, part.count, 1, requires_grad=True)

        def scale(_, args, mask=masks[kind, i], count=part.count):
            return ((args[0].unflatten(-1, (count, -1)) * mask).flatten(-2), *args[1:])

        handles.append(part.output.register_forward_pre_hook(scale))
    model(**batch).loss.backward()
    for handle in handles:
        handle.remove()
    for (kind, i), mask in masks.items():
        # The gradient of the mean over two texts, back to that of each.
        expected = (2 * mask.grad).abs().mean(0).flatten()
        torch.testing.assert_close(getattr(scores, kind)[i], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", MASKED)
def test_gradient_is_the_second_term_of_the_code_of_dynabert(name):
    model = make(name, "stock")
    batch = {key: value[:1] for key, value in labelled().items()}
    scores = measure_importance(model, [batch], "gradient")
    model(**batch).loss.backward()
    for i, layer in enumerate(encoder_layers(model)):
        weight = layer.neurons.output.weight
        expected = (weight * weight.grad).sum(0).abs().detach()
        torch.testing.assert_close(scores.neurons[i], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_stock_and_delta_models_have_the_same_scores(name):
    model = make(name, "stock")
    stock = model.to_stock()
    assert type(stock) is STOCK[name]
    same(measure_importance(model, [inputs()]), measure_importance(stock, [inputs()]))
    half = measure_importance(model.to(torch.bfloat16), [inputs()])
    assert {score.dtype for score in half.heads + half.neurons} == {torch.float32}


def test_texts_with_choices():
    config = BertConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
    )
    model = BertForMultipleChoice(config)
    batch = {key: value.view(1, 2, 12) for key, value in inputs().items()}
    same(measure_importance(model, [batch]), measure_importance(model.bert, [inputs()]))
    scores = measure_importance(model, [{**batch, "labels": torch.tensor([1])}], "gradient")
    assert min(score.max() for score in scores.heads) > 0
    embeds = model.get_input_embeddings()(batch["input_ids"])
    embedded = {"inputs_embeds": embeds, "attention_mask": batch["attention_mask"]}
    same(measure_importance(model, [embedded]), measure_importance(model, [batch]))


@pytest.mark.parametrize("criterion", ["activation", "gradient"])
def test_the_model_is_left_as_it_was(criterion):
    model = make("DeltaBertForMaskedLM", "stock", hidden_dropout_prob=0.5).train()
    model.bert.encoder.layer[1].eval()
    modes = [module.training for module in model.modules()]
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        first = measure_importance(model, [labelled()], criterion)
        assert not torch.is_grad_enabled()
    # Without dropout, and also where nothing is to be trained.
    same(first, measure_importance(model.requires_grad_(False), [labelled()], criterion), tolerance=0)
    model.requires_grad_(True)

    def broken():
        yield labelled()
        yield {**labelled(), "input_ids": torch.full((2, 12), 1000)}

    with pytest.raises(IndexError):
        measure_importance(model, broken(), criterion)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


def test_a_loss_function_of_the_outputs():
    model = make("DeltaModernBertModel", "stock")
    scores = measure_importance(model, [inputs()], "gradient", loss_fn=lambda out: out.last_hidden_state.std())
    assert min(score.max() for score in scores.heads + scores.neurons) > 0
    # What the loss does not depend on has no importance.
    scores = measure_importance(
        model, [{**inputs(), "output_hidden_states": True}], "gradient", lambda out: out.hidden_states[3].std()
    )
    assert [bool(score.max() > 0) for score in scores.neurons] == [True] * 3 + [False] * 2


@pytest.mark.parametrize("criterion", ["activation", "gradient"])
def test_bad_batches_are_named(criterion):
    model = make("DeltaBertForMaskedLM", "stock")
    for batches, message in (
        ([], "give at least one"),
        (labelled(), "must be dicts of model inputs, not str"),
        ([{**labelled(), "level": 0}], "at the full size; take level out"),
        (
            [{**labelled(), "attention_mask": torch.ones(2, 1, 12, 12)}],
            r"the shape \(2, 12\) of the tokens.* is \(2, 1",
        ),
        ([{**labelled(), "attention_mask": {}}], "is dict"),
        ([{"labels": labelled()["labels"]}], "a batch has labels; give input_ids or inputs_embeds"),
    ):
        with pytest.raises(ValueError, match=message):
            measure_importance(model, batches, criterion)


def test_bad_arguments_are_named():
    model = make("DeltaBertForMaskedLM", "stock")
    with pytest.raises(ValueError, match="'magnitude' does not exist; choose one of activation, gradient"):
        measure_importance(model, [labelled()], "magnitude")
    with pytest.raises(ValueError, match="loss_fn is of no use to criterion 'activation'"):
        measure_importance(model, [labelled()], loss_fn=torch.sum)
    for batches, loss_fn in (
        ([inputs()], None),
        ([labelled()], lambda out: 1.0),
        ([labelled()], lambda out: out.loss.detach()),
        ([labelled()], lambda out: out.logits),
    ):
        with pytest.raises(ValueError, match="'gradient' needs a loss; put labels into the batches"):
            measure_importance(model, batches, "gradient", loss_fn)
    stock = model.to_stock()
    for layer in stock.bert.encoder.layer:
        layer.chunk_size_feed_forward = 4
    with pytest.raises(ValueError, match=r"tokens of shape \(2, 4\), not \(2, 12\); set chunk_size_feed_forward"):
        measure_importance(stock, [inputs()])
    blank = {**inputs(), "attention_mask": torch.zeros(2, 12, dtype=torch.long)}
    with pytest.raises(ValueError, match="hold no token"):
        measure_importance(model, [blank])
