"""`hf-matryoshka train mamba` as a user runs it."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from hf_matryoshka.cli.options import load_yaml
from hf_matryoshka.modeling import MatryoshkaMambaConfig
from hf_matryoshka.recipes import train_mamba as module
from hf_matryoshka.recipes.mamba_recipe import MambaRecipe
from hf_matryoshka.trainers.mamba_arguments import MambaTrainingArguments


ROOT = Path(__file__).parents[2]


class Tokenizer:
    """As much of one as a config reads."""

    pad_token_id = 0

    def __len__(self):
        return 30522


@pytest.fixture
def calls(monkeypatch):
    """What the command hands to the recipe, which then does nothing."""
    found = []

    def run(recipe, output_dir, training=None, overwrite=False):
        found.append((recipe, training, overwrite))
        table = {"w1.0": {"d8": 0.5, "d64": 0.75}}
        return SimpleNamespace(report={"before": {"w1.0": 3.0}, "after": {"w1.0": 2.5}, "spearman_to_teacher": table})

    monkeypatch.setattr(module, "train_mamba", run)
    return found


def test_train_and_refuse(command, tmp_path, tiny_sentence_transformer, monkeypatch):
    monkeypatch.setenv("HF_MATRYOSHKA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "texts.txt").write_text("\n".join(f"the cat of the river {number}" for number in range(60)))
    config = tmp_path / "run.yaml"
    config.write_text("max_steps: 5\nlearning_rate: 0.5\nvalidation_fraction: 0.2\nhead_dim: 8\nstate_size: 8\n")
    options = ["--texts", tmp_path / "texts.txt", "--config", config, "--use_cpu", "--disable_tqdm", "True"]
    options += ["--teacher_model_path", tiny_sentence_transformer, "--hidden_size", 32, "--num-hidden-layers", 1]
    options += ["--widths", 0.5, 1, "--matryoshka_dims", 8, 16, "--dim_curriculum", "sandwich"]
    options += ["--per_device_train_batch_size", 4, "--learning_rate", 0.01, "--max_steps=2"]
    run = tmp_path / "run"
    status, output, error = command("train", "mamba", run, *options)
    assert status == 0, error
    assert "w0.5: loss " in output and "w1.0: loss " in output and f"Model: {run / 'model'}" in output
    assert "w0.5: rank agreement with the teacher d8 " in output
    report = json.loads((run / "training.json").read_text())
    assert report["steps"] == 2 and report["recipe"]["widths"] == [0.5, 1.0]
    assert report["training"]["learning_rate"] == 0.01 and report["training"]["dim_curriculum"] == "sandwich"
    status, output, _ = command("train", "mamba", run, *options, "--json")
    assert status == 0 and json.loads(output)["steps"] == 2
    status, _, error = command("train", "mamba", run, *options, "--seed", 3)
    assert status == 2 and "holds other files or a run with other data or options" in error


def test_flags_and_yaml_reach_the_recipe_and_the_training(command, calls, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("texts: [a.txt]\nhidden_size: 96\ncosine_weight: 5\ndim_weights: [1, 2]\nstate_size: 16\n")
    flags = ["--config", config, "--pairs", "a,b.tsv", "c.jsonl", "--pair_fields", "0:1", "query:answer"]
    flags += ["--no-rotate-teacher", "--direction", "causal", "--dim_widths", 0.5, 1, "--state-size", 32]
    flags += ["--gradient_conflict_steps", 50, "--overwrite", "--split_sentences"]
    status, output, error = command("train", "mamba", tmp_path, *flags)
    assert status == 0, error
    recipe, training, overwrite = calls.pop()
    assert recipe.pairs == ["a,b.tsv", "c.jsonl"] and recipe.pair_fields == ["0:1", "query:answer"]
    assert (recipe.hidden_size, recipe.state_size, recipe.direction) == (96, 32, "causal")
    assert recipe.dim_widths == [0.5, 1.0] and recipe.split_sentences and not recipe.rotate_teacher
    assert training == {"cosine_weight": 5, "dim_weights": [1, 2], "gradient_conflict_steps": 50} and overwrite
    assert "w1.0: loss 3.0000 -> 2.5000" in output and "teacher d8 0.500, d64 0.750" in output


def test_bad_flags_are_one_sentence(command, calls, tmp_path):
    def error(*flags):
        status, _, message = command("train", "mamba", tmp_path / "run", "--texts", "a.txt", *flags)
        assert status == 2 and not calls
        return " ".join(message.replace("│", " ").split())

    assert "unknown option '--budgets'; see hf-matryoshka train mamba --help" in error("--budgets", "0.5:6:6")
    assert "is no list of numbers such as" in error("--widths", "wide")
    assert "bad training argument" in error("--learning_rate", "fast")
    assert "must name two fields or columns" in error("--pairs", "a.tsv", "--pair_fields", "0")
    config = tmp_path / "run.yaml"
    config.write_text("cosine_wieght: 5\n")
    assert "unknown option 'cosine_wieght'; did you mean cosine_weight?" in error("--config", config)


def test_every_option_has_a_help_text(command):
    assert all(item.metadata.get("help") for item in MambaRecipe.__dataclass_fields__.values())
    status, output, _ = command("train", "mamba", "--help")
    assert status == 0 and "--teacher-model-path" in output and "--matryoshka-dims" in output


def test_the_yaml_file_of_the_repo_is_valid(tmp_path):
    values = load_yaml(ROOT / "configs" / "mamba_minilm.yaml", MambaRecipe, MambaTrainingArguments)
    named = MambaRecipe.__dataclass_fields__
    recipe = MambaRecipe(**{name: value for name, value in values.items() if name in named})
    module.mamba_arguments(tmp_path, recipe, {name: value for name, value in values.items() if name not in named})
    config = module.build_config(recipe, Tokenizer())
    assert config.levels == ("w0.25", "w0.5", "w1.0") and config.direction == "block_bidirectional"
    assert config.matryoshka_dims == MatryoshkaMambaConfig().matryoshka_dims
    assert not any(Path(path).is_absolute() for path in [*recipe.texts, *recipe.exclude])
    # The texts, and what is left out, are those of the other encoder that is distilled from the same teacher.
    other = yaml.safe_load((ROOT / "configs" / "delta_minilm.yaml").read_text())
    for name in ("texts", "text_field", "exclude", "exclude_field", "split_sentences"):
        assert values[name] == other[name]
