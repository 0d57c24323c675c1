"""`hf-matryoshka train gpt` and what follows it, as a user runs them."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from hf_matryoshka.cli.options import load_yaml
from hf_matryoshka.data.taxonomy import Taxonomy
from hf_matryoshka.modeling import MatryoshkaGPTForCausalLM
from hf_matryoshka.recipes.fractal_recipe import FractalRecipe
from hf_matryoshka.recipes.gpt_model import build_config
from hf_matryoshka.recipes.gpt_recipe import GPTRecipe
from hf_matryoshka.trainers.gpt_arguments import MatryoshkaGPTTrainingArguments


ROOT = Path(__file__).parents[2]


def test_train_export_draw_and_refuse(command, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat and the dog sat on the log.\n" * 60)
    config = tmp_path / "run.yaml"
    config.write_text("rows: windows\ntokenizer: characters\nmax_length: 16\nmax_steps: 5\nhidden_size: 32\n")
    options = ["--texts", text, "--config", config, "--num-hidden-layers", 1, "--num_attention_heads", 2]
    options += ["--doll_sizes", 16, 32, "--max_steps=40", "--learning_rate", 0.01, "--kd_weight", 0.2, "--use_cpu"]
    options += ["--disable_tqdm", "True", "--per_device_train_batch_size", 4]
    run = tmp_path / "run"
    status, output, error = command("train", "gpt", run, *options)
    assert status == 0, error
    assert "d16: loss " in output and "d32: loss " in output and ", perplexity " in output
    assert f"Model: {run / 'model'}" in output
    report = json.loads((run / "training.json").read_text())
    assert report["steps"] == 40 and report["recipe"]["doll_sizes"] == [16, 32]
    assert report["training"]["kd_weight"] == 0.2
    status, output, _ = command("train", "gpt", run, *options, "--json")
    assert status == 0 and json.loads(output)["after"] == report["after"]
    # A doll loads with plain transformers and writes the same text.
    status, output, error = command("export", run, tmp_path / "family", "--budgets", "d16", "d32")
    assert status == 0, error
    folder = tmp_path / "family" / "d16"
    stock, model = (
        AutoModelForCausalLM.from_pretrained(folder),
        MatryoshkaGPTForCausalLM.from_pretrained(run / "model"),
    )
    assert type(stock) is LlamaForCausalLM and not list(folder.glob("*.py"))
    ids = AutoTokenizer.from_pretrained(folder)("the cat", return_tensors="pt")["input_ids"]
    found = model.generate(ids, level="d16", max_new_tokens=20)
    assert torch.equal(stock.generate(ids, max_new_tokens=20), found)
    drafted = model.generate(ids, draft_level="d16", max_new_tokens=20)
    assert torch.equal(model.generate(ids, max_new_tokens=20), drafted)
    status, output, error = command("cosine-maps", run, tmp_path / "maps.png", "--widths", "4,32", "--json")
    assert status == 0, error
    assert (tmp_path / "maps.png").stat().st_size > 1000
    status, output, error = command("dendrograms", run, tmp_path / "trees.png", "--widths", "4,32", "--clusters", 3)
    assert status == 0, error
    assert output.strip() == str(tmp_path / "trees.png") and (tmp_path / "trees.png").stat().st_size > 1000
    status, output, error = command("dendrograms", run, tmp_path / "trees.png", "--widths", "4", "--json")
    assert status == 0 and json.loads(output) == {"picture": str(tmp_path / "trees.png")}, error
    bench = ("bench", "gpt", run, "--text", text, "--prompts", 2, "--prompt-tokens", 9, "--max-new-tokens", 12)
    status, output, error = command(*bench, "--json")
    assert status == 0, error
    found = json.loads(output)
    assert {row["draft_level"] for row in found["rows"]} == {"d16"} and len(found["rows"]) == 4
    assert not found["generate"] or found["generate"]["draft_level"] == "d16"
    status, output, error = command(*bench)
    assert status == 0 and "speedup" in output and output.splitlines()[-1].startswith(("generate(", "no draft"))
    for arguments, message in (
        ((*bench, "--prompt-tokens", 5000), "too few for 2 prompts of 5000"),
        (("bench", "gpt", tmp_path, "--text", text), "holds no Matryoshka GPT with a tokenizer"),
        (["train", "gpt", run, *options, "--seed", 3], "holds other files or a run with other data or options"),
        (["train", "gpt", tmp_path / "a", *options, "--doll_sizes", 12, 32], "doll size 12 of 32 does not fit"),
        (["train", "gpt", tmp_path / "a", "--rows", "windows"], "give exactly one of texts, dataset_name and"),
        (["cosine-maps", tmp_path, tmp_path / "b.png"], "holds no decoder with a tokenizer"),
        (["dendrograms", tmp_path, tmp_path / "b.png"], "holds no decoder with a tokenizer"),
        (["dendrograms", run, tmp_path / "b.png", "--linkage", "median"], "linkage 'median' does not exist"),
        (["export", run, tmp_path / "c", "--budgets", "d20"], "level 'd20' was not trained; the levels of"),
    ):
        status, _, error = command(*arguments)
        assert status == 2 and message in error, error
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("gpt_*.yaml")), ids=lambda path: path.stem)
def test_configs_of_the_repo_are_valid(path):
    values = load_yaml(path, GPTRecipe, MatryoshkaGPTTrainingArguments)
    if values.get("distil_from_base"):
        values["base_model_path"] = "given on the command line"
    recipe = GPTRecipe(**{name: value for name, value in values.items() if name in GPTRecipe.__dataclass_fields__})
    if recipe.base_model_path is None:
        assert build_config(recipe, None).levels


def test_the_fractal_and_the_groups_of_the_repo_are_valid():
    values = load_yaml(ROOT / "configs" / "fractal.yaml", FractalRecipe, MatryoshkaGPTTrainingArguments)
    named = FractalRecipe.__dataclass_fields__
    recipe = FractalRecipe(**{name: value for name, value in values.items() if name in named})
    assert len(build_config(recipe, None).levels) == 7
    taxonomy = Taxonomy.from_yaml(ROOT / "configs" / "characters.yaml")
    assert taxonomy.widths == [2, 4, 8] and "\n" in taxonomy.groups[8]["spaces"]


def test_a_fractal_is_trained_and_exported(command, tmp_path):
    texts = []
    for word in ("cats", "dogs"):
        texts.append(tmp_path / f"{word}.txt")
        texts[-1].write_text(f"{word} and {word} and so on\n" * 60)
    options = ["--tokenizer", "characters", "--max-length", 16, "--hidden-size", 32, "--num_attention_heads", 2]
    options += ["--num-hidden-layers", 1, "--depth", 2, "--children", 2, "--max_steps", 8, "--use_cpu"]
    options += ["--disable_tqdm", "True", "--texts", *texts]
    status, output, error = command("train", "fractal", tmp_path / "run", *options)
    assert status == 0 and "L1.1: loss " in output, error
    status, output, error = command("train", "fractal", tmp_path / "run", *options, "--json")
    assert status == 0 and json.loads(output)["after"].keys() == {"L1.0", "L1.1", "L0.0"}, error
    status, output, error = command(
        "export", tmp_path / "run", tmp_path / "family", "--budgets", "L1.0", "L1.1", "L0.0"
    )
    assert status == 0, error
    for level in ("L1.0", "L1.1", "L0.0"):
        assert type(AutoModelForCausalLM.from_pretrained(tmp_path / "family" / level)) is LlamaForCausalLM
    status, _, error = command("train", "fractal", tmp_path / "other", *options, "--depth", 3)
    assert status == 2 and "there are 2 files for 4 smallest dolls" in error
