import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from hf_matryoshka import Budget, PackedMlmCollator, run_full_evaluation, write_mask_file
from hf_matryoshka.evaluation.calibration import expected_calibration_error
from hf_matryoshka.evaluation.encoder_cost import encoder_cost

from ..modeling.delta_models import make


MODELS = ["DeltaBertForMaskedLM", "DeltaModernBertForMaskedLM"]
# The second and the third are not comparable.
LATTICE = [[0.25, 2, 2], [0.5, 4, 3], [1.0, 2, 3], [1.0, 4, 5]]
SETTINGS = {"latency_repeats": 0, "progress": False}


def make_batches(rows=(3, 1, 4), length=12):
    generator = torch.Generator().manual_seed(0)
    batches = []
    for size in rows:
        ids = torch.randint(3, 99, (size, length), generator=generator)
        asked = torch.rand(ids.shape, generator=generator) < 0.3
        attention_mask = torch.ones_like(ids)
        attention_mask[0, length - 3 :] = 0
        asked &= attention_mask.bool()
        labels = ids.masked_fill(~asked, -100)
        batches.append({"input_ids": ids.masked_fill(asked, 2), "labels": labels, "attention_mask": attention_mask})
    batches[0]["labels"][1] = -100  # a row without a question counts for nothing
    return batches


BATCHES = make_batches()


@pytest.fixture(scope="module")
def mlm_tokenizer(tiny_sentence_transformer):
    tokenizer = AutoTokenizer.from_pretrained(tiny_sentence_transformer)
    tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    return tokenizer


def evaluate(model, loader=BATCHES, *args, **settings):
    return run_full_evaluation(model, loader, *args, **{**SETTINGS, **settings})


@torch.no_grad()
def direct(model, level):
    """Loss of each masked token, its row, and whether and how surely the prediction is right; one row at a time."""
    losses, owners, confidence, correct, row = [], [], [], [], 0
    for batch in BATCHES:
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
            ids, labels = ids[mask.bool()][None], labels[mask.bool()]
            scores = torch.softmax(model(ids, level=level).logits[0].double(), dim=-1).numpy()
            for position, label in enumerate(labels.tolist()):
                if label != -100:
                    losses.append(-math.log(scores[position, label]))
                    owners.append(row)
                    confidence.append(scores[position].max())
                    correct.append(scores[position].argmax() == label)
            row += 1
    return np.array(losses), np.array(owners), np.array(confidence), np.array(correct)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_numbers_are_those_of_a_direct_computation(name, sparse):
    model = make(name, "joint-mixed", sparse_prediction=sparse)
    results = evaluate(model)
    assert [row["level"] for row in results["budgets"]] == list(model.config.levels)
    for row in results["budgets"]:
        losses, owners, confidence, correct = direct(model, row["level"])
        assert row["nll"] == pytest.approx(losses.mean(), rel=1e-5)
        assert row["perplexity"] == pytest.approx(math.exp(losses.mean()), rel=1e-4)
        assert row["accuracy"] == correct.mean()
        assert row["ece"] == pytest.approx(expected_calibration_error(confidence, correct), abs=1e-5)
        # The rows are drawn with all their tokens.
        rng, means = np.random.default_rng(5), []
        rows = [losses[owners == row] for row in np.unique(owners)]
        assert len(rows) == results["summary"]["num_rows"] == 7
        for _ in range(2000):
            means.append(np.concatenate([rows[index] for index in rng.integers(7, size=7)]).mean())
        low, high = np.quantile(means, [0.025, 0.975])
        assert (row["nll_low"], row["nll_high"]) == pytest.approx((low, high), abs=0.06 * (high - low))
        assert row["nll_low"] < row["nll"] < row["nll_high"]
        assert row["perplexity_low"] == pytest.approx(math.exp(row["nll_low"]))
        cost = model.cost(row["level"], sequence_length=12)
        assert row["flops_per_token"] == 2 * cost["macs"] and row["parameters"] == cost["parameters"]
        assert results["curve"][row["level"]].quality == -row["nll"]
    assert results["summary"]["num_masked_tokens"] == len(losses)


def plant(model, *worse):
    """Makes the logits of the levels in `worse` prefer the wrong tokens."""
    plain = type(model).forward

    def forward(*args, level=None, **kwargs):
        output = plain(model, *args, level=level, **kwargs)
        if level in worse:
            output.logits = output.logits * -3
        return output

    model.forward = forward
    return model


def test_violations_are_found_among_comparable_pairs_only():
    model = make("DeltaBertForMaskedLM", LATTICE)
    small, thin, few, full = model.config.levels
    with torch.no_grad():
        model.cls.predictions.decoder.weight.mul_(0.01)  # all levels are alike, near to uniform
        model.cls.predictions.bias.copy_(torch.linspace(0, 2, 99))
    assert evaluate(model)["summary"]["num_pairs"] == 5
    results = evaluate(plant(model, thin))
    (found,) = [each for each in results["violations"] if each["significant"]]
    assert (found["smaller"], found["larger"]) == (small, thin)
    by_level = {row["level"]: row["nll"] for row in results["budgets"]}
    assert found["nll_difference"] == pytest.approx(by_level[thin] - by_level[small])
    assert 0 < found["low"] < found["nll_difference"] < found["high"]
    # Worse than another of its size, and better than the full size, is no violation.
    pairs = {(each["smaller"], each["larger"]) for each in results["violations"]}
    assert not pairs & {(thin, few), (few, thin), (thin, full)}
    summary = results["summary"]
    assert summary["num_violations"] == len(results["violations"])
    assert summary["num_significant_violations"] == 1
    assert summary["violation_rate"] == len(results["violations"]) / 5


def test_the_summary_is_flat_and_the_rest_can_be_shown(tmp_path):
    model = make("DeltaModernBertForMaskedLM", LATTICE)
    results = evaluate(model, plot=tmp_path / "curve.png")
    summary, rows = results["summary"], results["budgets"]
    assert all(isinstance(value, (float, int, str)) for value in summary.values())
    json.dumps([summary, rows, results["violations"]])
    nll = [row["nll"] for row in rows]
    assert summary["autc"] == results["curve"].autc("flops_per_token", envelope=True)
    assert -max(nll) <= summary["autc"] <= -min(nll)
    assert summary["best_perplexity"] == pytest.approx(math.exp(min(nll)))
    assert (summary["full_nll"], summary["smallest_nll"]) == (nll[-1], nll[0])
    assert summary["max_ece"] == max(row["ece"] for row in rows)
    lines = results["table"].splitlines()
    assert [line.split()[0] for line in lines[2:]] == list(model.config.levels)
    assert f"{nll[0]:.3f} [{rows[0]['nll_low']:.3f}, {rows[0]['nll_high']:.3f}]" in lines[2]
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.format == "PNG"


def test_the_same_again_and_the_model_is_as_it_was():
    model = make("DeltaBertForMaskedLM", LATTICE, hidden_dropout_prob=0.5).train()
    model.bert.embeddings.eval()
    modes = [module.training for module in model.modules()]
    first, again = evaluate(model), evaluate(model, latency_repeats=1)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert first["summary"] == again["summary"]
    assert first["budgets"] == [
        {name: value for name, value in row.items() if not name.startswith("latency")} for row in again["budgets"]
    ]
    assert all(row["latency_ms"] > 0 and row["latency_ms_batch_32"] > 0 for row in again["budgets"])
    assert "ms (batch 32)" in again["table"] and "ms" not in first["table"]
    with pytest.raises(ValueError, match="has other masks"):
        evaluate(model, Changing())
    assert [module.training for module in model.modules()] == modes


class Changing:
    """Another mask whenever it is read."""

    def __init__(self):
        self.reads = 0

    def __iter__(self):
        self.reads += 1
        return iter(make_batches(rows=(1 + self.reads,)))


def test_budgets_come_in_any_form_and_wrong_ones_are_named():
    model = make("DeltaBertForMaskedLM", LATTICE)
    small, thin, few, full = model.config.levels
    asked = [Budget.parse([1.0, 4, 5]), (0.5, 4, 3), small, 0]
    assert [row["level"] for row in evaluate(model, BATCHES, asked)["budgets"]] == [small, thin, full]
    one = evaluate(model, BATCHES, [few])["summary"]
    assert (one["autc"], one["num_pairs"], one["violation_rate"]) == (None, 0, 0.0)
    mixed = make("DeltaBertForMaskedLM", "mixed")
    (row,) = evaluate(mixed, BATCHES, [((0.5, 0.5, 0.25), 2, 3)])["budgets"]
    assert row["level"] == mixed.config.levels[1]
    known = ", ".join(model.config.levels)
    for budgets, message in [
        ([(0.5, 3, 3)], f"budget w0.5-h3-d3 is no level of the model; choose among {known}$"),
        (["w0.5-h3-d3"], f"'w0.5-h3-d3' does not exist; choose one of {known}"),
        ((0.5, 4, 3), r"budget 0.5 must be \(width, heads, depth\)"),
        ([], "budgets is empty"),
    ]:
        with pytest.raises(ValueError, match=message):
            evaluate(model, BATCHES, budgets)


def test_bad_input_is_refused_before_any_work(monkeypatch, mlm_tokenizer):
    model = make("DeltaBertForMaskedLM", LATTICE)
    monkeypatch.setattr(model.bert, "forward", None)
    ids = BATCHES[0]["input_ids"]
    unlabelled = {"input_ids": ids}
    for loader, message in [
        ([], "the loader is empty"),
        ([BATCHES[0], unlabelled], "batch 1 of the loader has no labels"),
        ([{"labels": ids}], "batch 0 of the loader has no input_ids"),
        ([{"input_ids": ids, "labels": torch.full_like(ids, -100)}], "no token of the 1 batches is masked"),
        ([{"input_ids": ids + 40, "labels": ids}], "has the token 1.., but the model has 99 embeddings"),
        ([{"input_ids": ids, "labels": ids + 40}], "has the token 1.., but the model has 99 embeddings"),
        (iter(BATCHES), "can be read only once"),
    ]:
        with pytest.raises(ValueError, match=message):
            evaluate(model, loader)
    with pytest.raises(ValueError, match="embeddings; use the tokenizer of the checkpoint"):
        evaluate(make("DeltaBertForMaskedLM", vocab_size=9), tokenizer=mlm_tokenizer)
    for other in ("DeltaBertModel", "DeltaModernBertForSequenceClassification"):
        with pytest.raises(ValueError, match=f"a {other} is no nested masked language model"):
            evaluate(make(other))


def test_numbers_that_are_not_finite_are_named():
    model = make("DeltaBertForMaskedLM", LATTICE)
    with torch.no_grad():
        model.bert.encoder.layer[3].output.dense.bias[0] = float("nan")
    with pytest.raises(ValueError, match="level w1.0-h4-d5 gives a loss that is not finite on batch 0"):
        evaluate(model)
    assert len(evaluate(model, BATCHES, [0, 1])["budgets"]) == 2


def test_other_systems_compare_on_the_same_masks(tmp_path):
    model = make("DeltaBertForMaskedLM", LATTICE)
    better = make("DeltaBertForMaskedLM", LATTICE)
    with torch.no_grad():
        better.cls.predictions.decoder.weight.mul_(0.01)
    baseline = evaluate(model)["curve"]
    results = evaluate(better, baselines={"independent": baseline}, plot=tmp_path / "curve.png")
    summary = results["summary"]
    assert summary["autc_minus_independent"] == pytest.approx(summary["autc"] - baseline.autc("flops_per_token"))
    assert summary["autc_minus_independent_low"] < summary["autc_minus_independent"]
    assert summary["autc_minus_independent_high"] > summary["autc_minus_independent"] > 0
    assert results["curve"].baselines["independent"].system == "independent"
    model.forward = None
    for settings, message in [
        ({"split": "test"}, "independent has negative_nll on validation, not negative_nll on test"),
        ({"loader": make_batches((2, 2))}, "independent was evaluated on other masks"),
        ({"budgets": [0, 1]}, "areas compare over the same range only"),
    ]:
        with pytest.raises(ValueError, match=message):
            evaluate(model, **{"loader": BATCHES, **settings}, baselines={"independent": baseline})


def test_one_row_has_no_interval():
    batch = {name: value[:1] for name, value in BATCHES[0].items()}
    results = evaluate(make("DeltaBertForMaskedLM", LATTICE), [batch])
    assert all(row["nll_low"] is None and row["nll"] > 0 for row in results["budgets"])
    assert "[" not in results["table"]


@pytest.mark.parametrize("name", MODELS)
def test_a_mask_file_gives_every_attention_the_same_numbers(name, mlm_tokenizer, tmp_path):
    import hf_matryoshka.data.packed_attention  # noqa: F401 - makes "packed_sdpa" known

    size = len(mlm_tokenizer)
    generator = torch.Generator().manual_seed(2)
    lengths = [[5, 7], [9], [3, 4, 6], [12]]
    rows = [
        {"input_ids": torch.randint(5, size, (sum(row),), generator=generator).tolist(), "seq_lengths": row}
        for row in lengths
    ]
    collator = PackedMlmCollator(mlm_tokenizer, mlm_probability=0.5)
    packed = DataLoader(rows, batch_size=3, collate_fn=collator)
    masks = write_mask_file(tmp_path / "masks.arrow", packed, mlm_tokenizer, progress=False)
    model = make(name, LATTICE, vocab_size=size)
    plain = evaluate(model, masks.loader(model.config, batch_size=2), tokenizer=mlm_tokenizer)
    assert plain["summary"]["sequence_length"] == 13
    # Batches with segment ids get their mask on the device.
    raw = evaluate(model, packed)
    flat_model = make(name, LATTICE, vocab_size=size, attn_implementation="packed_sdpa")
    flat = evaluate(flat_model, masks.loader(flat_model.config, batch_size=3))
    assert flat["summary"]["num_rows"] > plain["summary"]["num_rows"]  # documents
    for other in (raw, flat):
        assert other["summary"]["mask_fingerprint"] == plain["summary"]["mask_fingerprint"]
        for mine, theirs in zip(plain["budgets"], other["budgets"], strict=True):
            assert mine["nll"] == pytest.approx(theirs["nll"], abs=1e-5)
    alien = make(name, LATTICE, vocab_size=size - 1)
    with pytest.raises(ValueError, match=f"has {size} tokens, but the model has {size - 1} embeddings"):
        evaluate(alien, masks.loader(model.config))


def test_the_cost_of_an_encoder_is_with_and_without_its_head():
    model = make("DeltaModernBertForMaskedLM", LATTICE).train()
    cost = encoder_cost(model, "w0.5-h4-d3", sequence_length=10, repeats=1)
    assert model.training
    assert cost["flops_per_token"] - cost["encoder_flops_per_token"] == 2 * (32 * 32 + 32 * 99)
    assert cost["macs"] == model.cost("w0.5-h4-d3", sequence_length=10)["macs"]
    assert set(encoder_cost(model, repeats=0)) == set(cost) - {"latency_ms", "latency_ms_batch_32"}
    assert encoder_cost(model, repeats=0)["macs"] == model.cost(None, sequence_length=128)["macs"]
