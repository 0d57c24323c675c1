import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import DataCollatorForLanguageModeling

from hf_matryoshka.data.packed_collator import MaskEpochs, PackedMlmCollator

from .delta_runs import ARCHITECTURES, NAMES, batch, cross_entropy, history, make, train, trainer


ALL = {"enable_cscf": True, "enable_mug": True, "mug_margin": 0.5, "enable_delta_depth": True}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_is_cross_entropy_at_full_size_and_half_distillation_below(architecture, tmp_path):
    built = trainer(tmp_path, make(architecture), alpha_kd=3.0, kd_temperature=2.0, level_weights=[1.0, 1.0, 4.0])
    model, inputs, labels = built.model.train(), batch(), batch()["labels"]
    logits = [model(**inputs, level=level).logits for level in range(3)]
    asked = labels != -100
    teacher = F.softmax(logits[2][asked].detach() / 2, -1)
    losses = [cross_entropy(values, labels) for values in logits]
    for level in range(2):
        student = F.log_softmax(logits[level][asked] / 2, -1)
        losses[level] = 0.25 * losses[level] + 0.75 * 4 * F.kl_div(student, teacher, reduction="batchmean")
    expected = (losses[0] + losses[1] + 4 * losses[2]) / 6
    torch.testing.assert_close(built.compute_loss(model, inputs), expected)
    logged = built._training_terms.pop(built.accelerator)
    assert logged == pytest.approx({f"loss_{n}": x.item() for n, x in zip(NAMES, losses, strict=True)}, abs=1e-5)
    # Gradients of the students do not reach the full budget through their teacher.
    expected.backward()
    wanted = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    built.compute_loss(model, inputs).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sparse_prediction_changes_no_loss(architecture, tmp_path):
    found = [trainer(tmp_path, make(architecture, sparse_prediction=sparse), **ALL) for sparse in (False, True)]
    losses = [built.compute_loss(built.model.train(), batch()) for built in found]
    torch.testing.assert_close(*losses)
    metrics = [built.evaluate() for built in found]
    for name in ("eval_loss", *(f"eval_loss_{level}" for level in NAMES)):
        assert metrics[1][name] == pytest.approx(metrics[0][name], abs=1e-5)


@pytest.mark.parametrize("weights", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
def test_accumulated_uneven_batches_are_one_large_batch_at_every_budget(weights, tmp_path):
    settings = {
        "optim": "sgd",
        "learning_rate": 0.5,
        "max_grad_norm": 0,
        "max_steps": 2,
        "lr_scheduler_type": "constant",
    }
    settings |= {"level_weights": weights, "enable_mug": True, "enable_delta_depth": True, "alpha_kd": 2.0}
    large = train(tmp_path, per_device_train_batch_size=8, **settings)
    small = train(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=4, **settings)
    start = dict(make().named_parameters())
    assert any((parameter - start[name]).abs().max() > 1e-3 for name, parameter in large.model.named_parameters())
    other = dict(small.model.named_parameters())
    for name, parameter in large.model.named_parameters():
        torch.testing.assert_close(other[name], parameter, atol=2e-6, rtol=1e-5, msg=name)
    for name in ("loss", "mug", *(f"loss_{level}" for level in NAMES)):
        assert history(small, name) == pytest.approx(history(large, name), abs=2e-5)


def test_alignment_weighs_micro_batches_by_their_labels(tmp_path):
    built = trainer(tmp_path, enable_cscf=True)
    model, inputs = built.model.train(), batch()
    whole = built.compute_loss(model, inputs)
    count = int((inputs["labels"] != -100).sum())
    torch.testing.assert_close(
        built.compute_loss(model, inputs, num_items_in_batch=torch.tensor(4 * count)), whole / 4
    )


def test_levels_are_logged_and_evaluated_over_tokens(tmp_path):
    built = train(tmp_path, level_weights=[1.0, 0.0, 3.0], per_device_eval_batch_size=3, enable_cscf=True)
    assert {f"loss_{name}" for name in NAMES} | {"cscf"} <= set(built.state.log_history[0])
    metrics, inputs = built.evaluate(), batch(16)
    losses = [cross_entropy(built.model(**inputs, level=level).logits, inputs["labels"]).item() for level in range(3)]
    assert [metrics[f"eval_loss_{name}"] for name in NAMES] == pytest.approx(losses, abs=1e-5)
    assert metrics["eval_loss"] == pytest.approx((losses[0] + 3 * losses[2]) / 4, abs=1e-5)
    assert "eval_cscf" not in metrics


def test_resume_equals_an_uninterrupted_run(tmp_path):
    settings = {**ALL, "max_steps": 8, "level_sampling": "random", "depth_dropout": 0.9, "depth_dropout_end": 0.9}
    whole = train(tmp_path / "whole", model=make(dropout=0.1), save_strategy="steps", save_steps=4, **settings)
    checkpoint = str(tmp_path / "whole" / "checkpoint-4")
    resumed = train(tmp_path / "resumed", resume=checkpoint, model=make(dropout=0.1), **settings)
    assert history(resumed) == pytest.approx(history(whole), rel=1e-6)
    found = dict(resumed.model.named_parameters())
    assert all(torch.equal(found[name], parameter) for name, parameter in whole.model.named_parameters())


# Each with other passes in a step: all levels, the full one shortened or not among them.
DISTRIBUTED = {
    "sandwich": {"enable_cscf": True},
    "shortened": {"enable_delta_depth": True, "depth_dropout": 0.9},
    "random": {"level_sampling": "random", "levels_per_step": 1},
}
TWO_PROCESSES = """
import importlib.util, json, sys

spec = importlib.util.spec_from_file_location("delta_runs", sys.argv[1])
runs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runs)
found = {}
for name, settings in json.loads(sys.argv[3]).items():
    built = runs.train(sys.argv[2], per_device_train_batch_size=2, gradient_accumulation_steps=2, **settings)
    found[name] = runs.history(built), built.evaluate()["eval_loss"], built.args.world_size
if built.args.process_index == 0:
    with open(sys.argv[4], "w") as file:
        json.dump(found, file)
"""


def test_two_processes_with_uneven_batches_are_one(run_in_two_processes, tmp_path):
    output = tmp_path / "result.json"
    base = {"optim": "sgd", "learning_rate": 0.5}
    cases = {name: {**base, **settings} for name, settings in DISTRIBUTED.items()}
    runs = Path(__file__).with_name("delta_runs.py")
    run_in_two_processes(TWO_PROCESSES, runs, tmp_path / "two", json.dumps(cases), output)
    for name, (losses, evaluated, processes) in json.loads(output.read_text()).items():
        assert processes == 2
        one = train(tmp_path / "one", per_device_train_batch_size=8, **cases[name])
        # Alignment is weighted by labels, not by tokens, and these are uneven.
        tolerance = 1e-3 if name == "sandwich" else 1e-5
        assert losses == pytest.approx(history(one), abs=tolerance)
        assert evaluated == pytest.approx(one.evaluate()["eval_loss"], abs=tolerance)


@pytest.fixture(scope="module")
def tokenizer(tiny_sentence_transformer):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_sentence_transformer)
    tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    return tokenizer


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padded_and_packed_batches_train(architecture, tokenizer, tmp_path):
    texts = ["the cat and the dog", "fish in a river", "a gene", "small cell large protein", "drug treats a bird"]
    encoded = tokenizer(texts)["input_ids"]
    padded = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in encoded]
    packed = [
        {"input_ids": [token for ids in part for token in ids], "seq_lengths": [len(ids) for ids in part]}
        for part in (encoded[:3], encoded[3:])
    ]
    for data in (padded, packed):
        model = make(architecture, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
        collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.3, seed=0)
        if data is packed:
            collator = PackedMlmCollator(tokenizer, model.config, mlm_probability=0.3)
        settings = {"per_device_train_batch_size": 2, "max_steps": 4, **ALL}
        built = trainer(tmp_path, model, data=data, evaluated=data, collator=collator, **settings)
        if data is packed:
            built.add_callback(MaskEpochs(collator))
        built.train()
        assert all(math.isfinite(loss) for loss in history(built) + history(built, "cscf"))
        assert len(history(built)) == 4 and 1 < built.evaluate()["eval_loss"] < 10


def test_small_budgets_learn_what_slices_of_a_trained_model_do_not_know(tokenizer, tmp_path):
    """Every token follows from its neighbours."""
    generator = torch.Generator().manual_seed(0)
    starts = torch.randint(0, 30, (256, 1), generator=generator)
    data = [{"input_ids": row} for row in (5 + (starts + 7 * torch.arange(16)) % 30).tolist()]
    losses = {}
    for name, weights in {"nested": None, "full only": [0.0, 0.0, 1.0]}.items():
        torch.manual_seed(0)
        collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.2, seed=1)
        budgets = [[0.25, 2, 1], [0.5, 4, 2], [1.0, 4, 4]]
        model = make("DeltaModernBert", vocab_size=len(tokenizer), budgets=budgets)
        settings = {"max_steps": 80, "per_device_train_batch_size": 32, "learning_rate": 0.01, "seed": 1}
        settings |= {"level_weights": weights, "enable_kd": weights is None}
        built = trainer(tmp_path, model, data=data, evaluated=data[:64], collator=collator, **settings)
        built.train()
        metrics = built.evaluate()
        losses[name] = [metrics[f"eval_loss_{level}"] for level in built.levels]
    nested, sliced = losses["nested"], losses["full only"]
    assert sliced[2] < 1 and nested[2] < sliced[2] + 0.3
    assert nested[0] < sliced[0] - 0.8 and nested[1] < 0.7 * sliced[1]
