"""`hf-matryoshka train delta` as a user runs it."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from hf_matryoshka.cli.options import load_yaml
from hf_matryoshka.recipes import train_delta as masked_lm
from hf_matryoshka.recipes import train_delta_embedding as embedding
from hf_matryoshka.recipes.delta_embedding_recipe import DeltaEmbeddingRecipe
from hf_matryoshka.recipes.delta_model import build_config
from hf_matryoshka.recipes.delta_recipe import DeltaRecipe
from hf_matryoshka.trainers.delta_arguments import DeltaTrainingArguments
from hf_matryoshka.trainers.delta_embedding_arguments import DeltaEmbeddingTrainingArguments


ROOT = Path(__file__).parents[2]


@pytest.fixture
def calls(monkeypatch):
    """What a command hands to a recipe, which then does nothing."""
    found = []

    def fake(name):
        def run(recipe, output_dir, training=None, overwrite=False):
            found.append((name, recipe, training))
            return SimpleNamespace(report={"before": {"w1.0-h2-d2": 3.0}, "after": {"w1.0-h2-d2": 2.5}})

        return run

    monkeypatch.setattr(masked_lm, "train_delta", fake("masked_lm"))
    monkeypatch.setattr(embedding, "train_delta_embedding", fake("embedding"))
    return found


def test_train_and_refuse(command, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"the cat of the river number {number}" for number in range(90)))
    config = tmp_path / "run.yaml"
    fields = "max_steps: 5\nlearning_rate: 0.5\nmax_length: 32\nvocab_size: 290\nvalidation_fraction: 0.2\n"
    config.write_text(f"{fields}disable_tqdm: true\n")
    shape = ["--hidden_size", 16, "--num-hidden-layers", 2, "--num_attention_heads", 2, "--intermediate_size", 16]
    options = [
        *shape,
        "--texts",
        texts,
        "--config",
        config,
        "--residual",
        "joint",
        "--use_cpu",
        "--disable_tqdm",
        "True",
    ]
    options += ["--width_budgets", 0.5, 1, "--head_budgets", 1, 2, "--depth_budgets", 2, 2]
    options += ["--batch_size", 4, "--lr", 0.01, "--train_steps=2"]
    run = tmp_path / "run"
    status, output, error = command("train", "delta", run, *options)
    assert status == 0, error
    assert "w0.5-h1-d2: loss 5." in output and "w1.0-h2-d2: loss 5." in output and f"Model: {run / 'model'}" in output
    report = json.loads((run / "training.json").read_text())
    assert report["steps"] == 2 and report["recipe"]["budgets"] == [[0.5, 1, 2], [1.0, 2, 2]]
    given = report["training"]
    assert given["learning_rate"] == 0.01 and given["max_steps"] == 2 and given["per_device_train_batch_size"] == 4
    status, output, _ = command("train", "delta", run, *options, "--json")
    assert status == 0 and json.loads(output)["steps"] == 2
    status, _, error = command("train", "delta", run, *options, "--seed", 3)
    assert status == 2 and "holds other files or a run with other data or options" in error


def test_flags_reach_the_recipe_of_the_objective(command, calls, tmp_path):
    flags = ["--texts", "a.txt", "b,c.txt", "--enable_cscf", "--tap_layers", 1, 3, "--enable_mug", "--no_enable_kd"]
    status, output, error = command("train", "delta", tmp_path, *flags, "--budgets", "0.5:6:6", "1.0:12:12")
    assert status == 0, error
    name, recipe, training = calls.pop()
    assert name == "masked_lm" and recipe.texts == ["a.txt", "b,c.txt"]
    assert recipe.budgets == [[0.5, 6, 6], [1.0, 12, 12]]
    assert training == {"enable_cscf": True, "tap_layers": [1, 3], "enable_mug": True, "enable_kd": False}
    assert "w1.0-h2-d2: loss 3.0000 -> 2.5000" in output

    config = tmp_path / "run.yaml"
    config.write_text(
        "objective: embedding\ntexts: [a.txt]\ncosine_weight: 5\nbudgets: [[0.5, 12, 6], [1.0, 12, 6]]\n"
    )
    status, _, error = command("train", "delta", tmp_path, "--config", config, "--matryoshka_dims", 32, 384)
    assert status == 0, error
    name, recipe, training = calls.pop()
    assert name == "embedding" and recipe.matryoshka_dims == [32, 384] and training == {"cosine_weight": 5}
    assert recipe.budgets == [[0.5, 12, 6], [1.0, 12, 6]]


def test_phases_and_the_base_are_flags(command, calls, tmp_path):
    flags = ["--texts", "a.txt", "--base_ratio", 0.5, "--base_heads", 6, "--budget_norms"]
    flags += ["--enable_three_phase", "--phase_boundaries", 0.2, 0.5, "--enable_delta_residual", "--beta_delta", 0.5]
    flags += ["--enable_token_delta", "--token_shares", 0.5, 1.0, "--layer_order", 0, 2, 1]
    status, _, error = command("train", "delta", tmp_path, *flags)
    assert status == 0, error
    _, recipe, training = calls.pop()
    assert (recipe.base_ratio, recipe.base_heads, recipe.budget_norms) == (0.5, 6, True)
    assert training == {
        "enable_three_phase": True,
        "phase_boundaries": [0.2, 0.5],
        "enable_delta_residual": True,
        "beta_delta": 0.5,
        "enable_token_delta": True,
        "token_shares": [0.5, 1.0],
    }
    assert recipe.layer_order == [0, 2, 1]


def test_bad_flags_are_one_sentence(command, calls, tmp_path):
    def error(*flags):
        status, _, message = command("train", "delta", tmp_path / "run", "--texts", "a.txt", *flags)
        assert status == 2 and not calls
        return " ".join(message.replace("│", " ").split())

    assert "unknown option '--enable_all'; see hf-matryoshka train delta --help" in error("--enable_all")
    for flag in ("--load_path", "--export_only", "--export-budgets"):
        assert f"{flag} belongs to exporting: use `hf-matryoshka export RUN OUT --budgets" in error(flag)
    assert "--vocab-size is no option of objective 'embedding'" in error(
        "--objective", "embedding", "--vocab-size", 99
    )
    assert "objective 'causal' does not exist" in error("--objective", "causal")
    assert "is no list of budgets such as 0.5:6:6,1.0:12:12" in error("--budgets", "0.5:6")
    assert "is no list of numbers such as" in error("--width_budgets", "wide")
    assert "bad training argument" in error("--lr", "fast")
    config = tmp_path / "run.yaml"
    config.write_text("cosine_weight: 5\n")
    assert "unknown option 'cosine_weight'" in error("--config", config)


def test_the_yaml_files_of_the_repo_are_valid(tmp_path):
    values = load_yaml(ROOT / "configs" / "delta_minilm.yaml", DeltaEmbeddingRecipe, DeltaEmbeddingTrainingArguments)
    named = DeltaEmbeddingRecipe.__dataclass_fields__
    recipe = DeltaEmbeddingRecipe(**{name: value for name, value in values.items() if name in named})
    training = {name: value for name, value in values.items() if name not in named}
    arguments = embedding.embedding_arguments(tmp_path, recipe, training)
    assert len(arguments.level_probabilities) == len(arguments.level_weights) == len(recipe.budgets) == 6
    assert not any(Path(path).is_absolute() for path in [*recipe.texts, *recipe.exclude])
    values = load_yaml(ROOT / "configs" / "delta_from_scratch.yaml", DeltaRecipe, DeltaTrainingArguments)
    named = DeltaRecipe.__dataclass_fields__
    recipe = DeltaRecipe(**{name: value for name, value in values.items() if name in named})
    training = {name: value for name, value in values.items() if name not in named}
    masked_lm.delta_arguments(tmp_path, recipe, training)
    config, _ = build_config(recipe, None)
    assert config.levels == ("w0.5-h4-d2", "w0.75-h4-d3", "w1.0-h4-d4")
    assert not any(Path(path).is_absolute() for path in recipe.texts)
