import json
import logging
import random

import pytest
import torch
from datasets import load_from_disk
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM

from hf_matryoshka.data.pack import pack_texts
from hf_matryoshka.data.train_tokenizer import train_tokenizer
from hf_matryoshka.evaluation.curve import Curve
from hf_matryoshka.recipes import train_delta as training
from hf_matryoshka.recipes.delta_model import build_model
from hf_matryoshka.recipes.delta_recipe import DeltaRecipe
from hf_matryoshka.trainers.dds_bank import random_atoms, read_bank
from hf_matryoshka.trainers.delta_pack import apply_delta_pack


WORDS = "the cat dog bird fish river city gene cell protein drug of in and is large small".split()
BUDGETS = [[0.5, 1, 1], [1.0, 2, 2]]
ARGUMENTS = {
    "max_steps": 12,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "save_steps": 5,
    "disable_tqdm": True,
    "use_cpu": True,
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    rng = random.Random(0)
    lines = [" ".join(rng.choices(WORDS, k=rng.randint(3, 20))) for _ in range(150)]
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def recipe(texts=None, **options):
    settings = {
        "texts": None if texts is None else [str(texts)],
        "vocab_size": 300,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "budgets": BUDGETS,
        "residual": "joint",
        "max_length": 32,
        "validation_fraction": 0.2,
        **options,
    }
    return DeltaRecipe(**settings)


def from_checkpoint(path, texts, **options):
    shape = dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"))
    return recipe(texts, **{**shape, "base_model_path": str(path), "residual": None, "budgets": None, **options})


@pytest.fixture(scope="module")
def scratch(texts, tmp_path_factory):
    """A finished run, and its folder."""
    folder = tmp_path_factory.mktemp("scratch") / "run"
    return training.train_delta(recipe(texts), folder, ARGUMENTS), folder


@pytest.fixture(scope="module")
def bert(texts, tmp_path_factory):
    """A stock BERT checkpoint with its tokenizer, trained a little."""
    folder = tmp_path_factory.mktemp("bert")
    run = training.train_delta(recipe(texts, architecture="bert", vocab_size=290), folder / "run", ARGUMENTS)
    run.model.to_stock().save_pretrained(folder / "stock")
    run.tokenizer.save_pretrained(folder / "stock")
    return folder / "stock"


def test_from_scratch(scratch, texts):
    trained, folder = scratch
    report = trained.report
    assert list(report["before"]) == ["w0.5-h1-d1", "w1.0-h2-d2"] == list(trained.model.config.levels)
    assert all(report["after"][level] < report["before"][level] - 1 for level in report["before"])
    assert report["forms"] == {"w0.5-h1-d1": "stock", "w1.0-h2-d2": "stock"}
    assert report["steps"] == 12 and report["tokens_per_second"] > 0
    assert json.loads((folder / "training.json").read_text()) == json.loads(json.dumps(report))
    curve = Curve.from_json(folder / "curve.json")
    assert [-quality for quality in curve.qualities] == pytest.approx(list(report["after"].values()), abs=1e-4)
    model = AutoModelForMaskedLM.from_pretrained(folder / "model")
    assert not model.config.sparse_prediction and model.config.vocab_size == len(trained.tokenizer) <= 300
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    inputs = tokenizer("the cat in the river", return_tensors="pt")
    with torch.no_grad():
        assert model(**inputs, level=0).logits.shape == (1, inputs["input_ids"].shape[1], len(tokenizer))
    # Documents are on one side.
    parts = {}
    for name in ("train", "validation"):
        rows = load_from_disk(folder / "data" / name)
        parts[name] = set()
        for row in rows:
            pieces = torch.tensor(row["input_ids"]).split(row["seq_lengths"])
            parts[name] |= {tokenizer.decode(piece, skip_special_tokens=True) for piece in pieces}
    found = parts["train"] | parts["validation"]
    assert not parts["train"] & parts["validation"] and found <= set(texts.read_text().splitlines()) | found
    assert 0.1 < len(parts["validation"]) / len(found) < 0.3


def test_every_budget_can_have_masks_of_its_own(texts, tmp_path, monkeypatch):
    seen = []
    real = training.RunTrainer.compute_loss

    def compute_loss(self, model, inputs, *args, **kwargs):
        seen.append((model.training, len(inputs.get("other_maskings", ()))))
        return real(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(training.RunTrainer, "compute_loss", compute_loss)
    settings = {**ARGUMENTS, "max_steps": 2, "level_sampling": "all", "enable_kd": False}
    training.train_delta(recipe(texts, level_maskings=True), tmp_path / "run", settings)
    with pytest.raises(ValueError, match="enable_mug compares budgets token by token, but with level_maskings each"):
        training.train_delta(recipe(texts, level_maskings=True), tmp_path / "no", {**settings, "enable_mug": True})
    # Held-out rows are masked once, for all budgets alike.
    assert set(seen) == {(True, 1), (False, 0)}


def test_a_finished_run_is_read_and_another_one_is_refused(scratch, texts, monkeypatch):
    trained, folder = scratch
    monkeypatch.setattr(training.RunTrainer, "train", None)
    again = training.train_delta(recipe(texts), folder, ARGUMENTS)
    assert again.report == json.loads(json.dumps(trained.report)) and len(again.tokenizer) == len(trained.tokenizer)
    for other, arguments in ((recipe(texts, seed=1), ARGUMENTS), (recipe(texts), {**ARGUMENTS, "max_steps": 13})):
        with pytest.raises(ValueError, match="holds other files or a run with other data or options"):
            training.train_delta(other, folder, arguments)
    content = texts.read_text()
    texts.write_text(f"{content}one more\n")
    with pytest.raises(ValueError, match="holds other files"):
        training.train_delta(recipe(texts), folder, ARGUMENTS)
    texts.write_text(content)


def test_an_interrupted_run_goes_on_and_ends_the_same(scratch, texts, tmp_path, monkeypatch):
    class Interruption(Exception):
        pass

    real, steps = training.RunTrainer.training_step, []

    def step(self, *args, **kwargs):
        steps.append(self.state.global_step)
        if len(steps) == 8:
            raise Interruption
        return real(self, *args, **kwargs)

    monkeypatch.setattr(training.RunTrainer, "training_step", step)
    with pytest.raises(Interruption):
        training.train_delta(recipe(texts), tmp_path / "run", ARGUMENTS)
    assert not (tmp_path / "run" / "model").exists()
    monkeypatch.setattr(training, "pack_texts", None, raising=False)
    resumed = training.train_delta(recipe(texts), tmp_path / "run", ARGUMENTS)
    assert steps[8:] == list(range(5, 12))
    for a, b in zip(resumed.model.parameters(), scratch[0].model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    for name in ("before", "after"):
        assert resumed.report[name] == pytest.approx(scratch[0].report[name], abs=1e-5)


def test_packed_rows_and_a_teacher(scratch, texts, tmp_path):
    trained, folder = scratch
    lines = texts.read_text().splitlines()
    for name, part in (("train", lines[:100]), ("validation", lines[100:])):
        pack_texts(part, tmp_path / name, trained.tokenizer, max_length=32, progress=False)
    rows = {"pretokenized_path": str(tmp_path / "train"), "tokenizer": str(folder / "model")}
    options = {**rows, "validation_path": str(tmp_path / "validation"), "target_model_path": str(folder / "model")}
    quick = {**ARGUMENTS, "max_steps": 1, "learning_rate": 0.0}
    run = training.train_delta(recipe(**options), tmp_path / "run", quick)
    assert run.report["rows"] == len(load_from_disk(tmp_path / "train"))
    assert run.report["held_out_rows"] == len(load_from_disk(tmp_path / "validation"))
    split = training.train_delta(recipe(**rows), tmp_path / "split", quick)
    assert split.report["held_out_rows"] == round(0.2 * run.report["rows"])
    assert split.report["held_out_rows"] + split.report["rows"] == run.report["rows"]
    few = training.train_delta(recipe(**rows, validation_rows=3), tmp_path / "few", quick)
    assert few.report["held_out_rows"] == 3


def test_the_teacher_teaches(scratch, texts, tmp_path, monkeypatch):
    teachers = []
    real = training.RunTrainer.__init__

    def init(self, *args, teacher=None, **kwargs):
        teachers.append(teacher)
        real(self, *args, teacher=teacher, **kwargs)

    monkeypatch.setattr(training.RunTrainer, "__init__", init)
    options = {"target_model_path": str(scratch[1] / "model")}
    training.train_delta(recipe(texts, **options), tmp_path / "run", {**ARGUMENTS, "max_steps": 1})
    assert teachers[0].config.levels == scratch[0].model.config.levels
    with pytest.raises(ValueError, match="target_model_path needs enable_kd=True"):
        training.train_delta(recipe(texts, **options), tmp_path / "other", {**ARGUMENTS, "enable_kd": False})


def test_a_stock_checkpoint_is_sorted_and_computes_the_same(bert, texts, tmp_path, caplog):
    budgets = [[0.5, 1, 1], [1.0, 2, 2]]
    # Longer than an epoch: training rows are then masked anew, held-out rows are not.
    still = {**ARGUMENTS, "max_steps": 6, "per_device_train_batch_size": 32, "learning_rate": 0.0, "weight_decay": 0.0}
    caplog.set_level(logging.WARNING)
    runs = {
        rewire: training.train_delta(
            from_checkpoint(bert, texts, budgets=budgets, rewire=rewire, seed=1), tmp_path / str(rewire), still
        )
        for rewire in (None, False)
    }
    for run in runs.values():
        assert run.report["after"] == pytest.approx(run.report["before"], abs=1e-5)
    stock = BertForMaskedLM.from_pretrained(bert).eval()
    inputs = runs[None].tokenizer("the cat in the river", return_tensors="pt")
    with torch.no_grad():
        for run in runs.values():
            assert torch.allclose(run.model(**inputs).logits, stock(**inputs).logits, atol=1e-5)
    layers = [run.model.bert.encoder.layer[0].intermediate.dense.weight for run in runs.values()]
    assert not torch.equal(*layers)
    assert torch.allclose(layers[0].sum(0), layers[1].sum(0), atol=1e-5)
    # One head in the full residual stream has no exact stock form; it is said, and the other one has.
    assert runs[None].report["forms"] == {"w0.5-h1-d1": "stock_padded", "w1.0-h2-d2": "stock"}
    assert "padded with zeros it can be stock" in caplog.text
    # A nested checkpoint keeps its budgets and its order.
    nested = tmp_path / "False" / "model"
    again = training.train_delta(from_checkpoint(nested, texts), tmp_path / "again", still)
    assert again.model.config.levels == ("w0.5-h1-d1", "w1.0-h2-d2")
    assert torch.equal(again.model.bert.encoder.layer[0].intermediate.dense.weight, layers[1])
    # So it is with the layers: chosen once, unless they are given.
    assert sorted(runs[None].model.config.layer_order) == [0, 1]
    assert again.model.config.layer_order == runs[False].model.config.layer_order
    given = training.train_delta(
        from_checkpoint(bert, texts, budgets=budgets, layer_order=[1, 0]), tmp_path / "given", still
    )
    assert given.model.config.level_sizes(0).layers == (1,)


def test_what_a_checkpoint_does_not_have_is_drawn_from_the_seed(bert, texts):
    options = from_checkpoint(bert, texts, budgets=[[0.5, 1, 1], [1.0, 2, 2]], token_routing=True)
    tokenizer, found = AutoTokenizer.from_pretrained(bert), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(build_model(options, tokenizer).state_dict())
    previews = [name for name in found[0] if ".preview." in name]
    assert previews and all(torch.equal(found[0][name], found[1][name]) for name in previews)


@pytest.mark.parametrize("distil", [True, False])
def test_a_larger_model_starts_as_the_small_one(bert, scratch, texts, tmp_path, distil):
    small = BertForMaskedLM.from_pretrained(bert).eval()
    shape = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 96}
    large = BertForMaskedLM(BertConfig(**{**small.config.to_dict(), **shape}))
    large.save_pretrained(tmp_path / "large")
    AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path / "large")
    still = {**ARGUMENTS, "max_steps": 1, "learning_rate": 0.0, "weight_decay": 0.0, "enable_kd": distil}
    options = {"target_model_path": str(tmp_path / "large"), "init_delta_from_target": True}
    run = training.train_delta(from_checkpoint(bert, texts, **options), tmp_path / "run", still)
    assert run.model.config.hidden_size == 64 and run.model.config.delta_gates and len(run.model.config.levels) == 2
    assert list(run.report["forms"]) == list(run.model.config.levels)
    inputs = run.tokenizer("the cat in the river", return_tensors="pt")
    with torch.no_grad():
        for level in run.model.config.levels:
            found = run.model(**inputs, level=level).logits
            torch.testing.assert_close(found, small(**inputs).logits, atol=1e-4, rtol=0)
    gates = [value for key, value in run.model.named_parameters() if key.endswith(".gate")]
    assert len(gates) == 6 and not any(gate.item() for gate in gates)


@pytest.mark.parametrize("bank", ["target", "random"])
def test_an_upgrade_pack_makes_the_trained_model_of_the_checkpoint(bert, texts, tmp_path, bank):
    shape = {"budgets": BUDGETS, "enable_dds": True, "dds_num_atoms": 3, "dds_rank": 4}
    options = {"enable_kd": False, "enable_three_phase": True}
    if bank == "target":
        plain = from_checkpoint(bert, texts, budgets=[[1.0, 2, 2]], rewire=False)
        training.train_delta(plain, tmp_path / "target", ARGUMENTS)
        shape["target_model_path"] = str(tmp_path / "target" / "model")
    run = training.train_delta(from_checkpoint(bert, texts, **shape), tmp_path / "run", {**ARGUMENTS, **options})
    for level, loss in run.report["after"].items():
        assert loss < run.report["before"][level]
    files = [tmp_path / "run" / name for name in ("delta_pack.safetensors", "dds_bank.safetensors")]
    assert run.report["pack_bytes"] == files[0].stat().st_size
    stock = BertForMaskedLM.from_pretrained(bert).eval()
    before = {name: tensor.clone() for name, tensor in stock.state_dict().items()}
    apply_delta_pack(stock, *files)
    after = run.model.state_dict()
    for name, tensor in stock.state_dict().items():
        assert torch.equal(tensor, after[name]), name
    changed = [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]
    assert len(changed) == 2 * 6 and all(".layer." in name and name.endswith("weight") for name in changed)
    # The atoms of the first layer point where the target went.
    atoms = read_bank(files[1])["encoder.layer.*.output.dense.left"]
    assert atoms.shape == (32, 3, 4)
    random_ones = random_atoms("encoder.layer.*.output.dense", (32, 32), 3, 4, 0)[0]
    assert torch.equal(atoms, random_ones) == (bank == "random")
    # The bank of one run serves another.
    again = {**shape, "dds_bank": str(files[1])}
    if bank == "random":
        with pytest.raises(ValueError, match="the bank have the shape .* but .* is needed"):
            other = from_checkpoint(bert, texts, **again | {"dds_rank": 5})
            training.train_delta(other, tmp_path / "other", ARGUMENTS)
        assert not (tmp_path / "other").exists()
        training.train_delta(from_checkpoint(bert, texts, **again), tmp_path / "other", {**ARGUMENTS, "max_steps": 1})
        assert torch.equal(read_bank(tmp_path / "other" / files[1].name)["encoder.layer.*.output.dense.left"], atoms)


def test_an_interrupted_upgrade_goes_on(bert, texts, tmp_path, monkeypatch):
    options = from_checkpoint(bert, texts, budgets=BUDGETS, enable_dds=True, dds_num_atoms=3, dds_rank=4)
    whole = training.train_delta(options, tmp_path / "whole", ARGUMENTS)
    real, steps = training.RunTrainer.training_step, []

    def step(self, *args, **kwargs):
        steps.append(self.state.global_step)
        if len(steps) == 8:
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    monkeypatch.setattr(training.RunTrainer, "training_step", step)
    with pytest.raises(KeyboardInterrupt):
        training.train_delta(options, tmp_path / "run", ARGUMENTS)
    run = training.train_delta(options, tmp_path / "run", ARGUMENTS)
    assert steps[8:] == list(range(5, 12))
    for name, tensor in run.model.state_dict().items():
        assert torch.allclose(tensor, whole.model.state_dict()[name], atol=1e-6), name


def test_what_contradicts_a_checkpoint_is_refused_before_any_work(bert, scratch, texts, tmp_path):
    def refused(message, arguments=ARGUMENTS, **options):
        with pytest.raises(ValueError, match=message):
            training.train_delta(from_checkpoint(bert, texts, **options), tmp_path / "run", arguments)
        assert not (tmp_path / "run").exists()

    refused("hidden_size 64 contradicts the checkpoint .* which has 32; leave it out", hidden_size=64)
    refused("num_hidden_layers 3 contradicts", num_hidden_layers=3)
    refused("has another vocabulary than that of base_model_path", tokenizer=str(scratch[1] / "model"))
    refused("has another vocabulary than that of target_model_path", target_model_path=str(scratch[1] / "model"))
    refused("max_length 1024 is more than the model has positions; give at most 512", max_length=1024)
    refused("must be the full size", budgets=[[1.0, 1, 1]])
    refused("max_steps must be at least 1", {**ARGUMENTS, "max_steps": 0})
    refused("output_dir is the folder of the run", {**ARGUMENTS, "output_dir": "x"})
    refused("level_sampling 'one' does not exist", {**ARGUMENTS, "level_sampling": "one"})


def test_bad_models_and_texts_are_refused(scratch, texts, tmp_path):
    def refused(message, kind=ValueError, **options):
        with pytest.raises(kind, match=message):
            training.train_delta(recipe(options.pop("path", texts), **options), tmp_path / "run", ARGUMENTS)

    refused("is not inside the last one", budgets=[[1.0, 2, 1], [0.5, 2, 2]])
    refused("is no multiple of num_attention_heads", hidden_size=33)
    refused("vocab_size must be at least 261", vocab_size=100)
    refused("does not exist; give a .txt", FileNotFoundError, path=tmp_path / "none.txt")
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    refused("empty.txt holds no text", path=empty)
    refused("cannot read a checkpoint from 'no/where'", OSError, base_model_path="no/where", rewire=None)
    assert not (tmp_path / "run").exists()
    short = tmp_path / "short.txt"
    short.write_text("\n".join(texts.read_text().splitlines()[:12]))
    with pytest.raises(ValueError, match=r"has \d+ tokens in \d rows, but one step trains on 64 rows"):
        training.train_delta(
            recipe(short, validation_fraction=0), tmp_path / "short", {**ARGUMENTS, "per_device_train_batch_size": 64}
        )
    with pytest.raises(ValueError, match="the validation part of the texts: the corpus has"):
        training.train_delta(recipe(short, max_length=90), tmp_path / "held", ARGUMENTS)


def test_rows_of_another_tokenizer_are_refused(scratch, texts, tmp_path):
    other = train_tokenizer(texts.read_text().splitlines(), 290, progress=False)
    other.save_pretrained(tmp_path / "other")
    pack_texts(texts.read_text().splitlines(), tmp_path / "rows", other, max_length=32, progress=False)
    options = {"pretokenized_path": str(tmp_path / "rows"), "tokenizer": str(scratch[1] / "model")}
    with pytest.raises(ValueError, match="is not the one that .*rows was packed with"):
        training.train_delta(recipe(**options), tmp_path / "run", ARGUMENTS)
    with pytest.raises(ValueError, match="does not say which tokenizer made it; give tokenizer"):
        training.train_delta(recipe(**{**options, "tokenizer": None}), tmp_path / "run", ARGUMENTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"texts": None}, "give exactly one of texts, dataset_name and pretokenized_path, but got none"),
        ({"dataset_name": "a"}, "but got texts and dataset_name"),
        ({"text_field": ["a", "b"]}, "text_field has 2 names for 1 files"),
        ({"objective": "causal"}, "objective 'causal' does not exist; choose one of masked_lm, embedding"),
        ({"architecture": "t5"}, "architecture 't5' does not exist; choose one of modernbert, bert"),
        ({"mlm_probability": 1.0}, "mlm_probability must be between 0 and 1"),
        ({"validation_fraction": 1.0}, "validation_fraction must be in"),
        ({"num_proc": 0}, "num_proc must be at least 1"),
        ({"rewire": True}, "needs base_model_path"),
        ({"dds_rank": 4}, "dds_rank goes with enable_dds, which is off"),
        ({"enable_dds": True}, "enable_dds trains an upgrade of a checkpoint, so it needs base_model_path"),
        ({"enable_dds": True, "base_model_path": "a", "dds_num_atoms": 0}, "dds_num_atoms must be at least 1"),
        ({"enable_dds": True, "base_model_path": "a", "rewire": True}, "but rewire would change it; leave it out"),
        ({"init_delta_from_target": True}, "needs base_model_path and target_model_path"),
        (
            {"init_delta_from_target": True, "base_model_path": "a", "target_model_path": "b", "hidden_size": 8},
            "in the shape of the target; leave hidden_size out",
        ),
        ({"order_layers": True}, "order_layers measures the weights of a checkpoint, so it needs base_model_path"),
        ({"order_layers": True, "layer_order": [0, 1]}, "layer_order says which layers the budgets run; leave order"),
        ({"validation_path": "rows"}, "validation_path goes with pretokenized_path"),
        ({"width_budgets": [0.5, 1]}, "must be equally long, but have 2, 0 and 0 values"),
        ({"width_budgets": [1.0], "head_budgets": [2], "depth_budgets": [2], "budgets": BUDGETS}, "not both"),
    ],
)
def test_bad_recipes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DeltaRecipe(**{"texts": ["a.txt"], **options})


def test_parallel_lists_are_budgets():
    made = DeltaRecipe(texts=["a"], width_budgets=[0.5, 1.0], head_budgets=[1, 2], depth_budgets=[1, 2])
    assert made.budgets == [[0.5, 1, 1], [1.0, 2, 2]]
