"""`hf-matryoshka train funnel` as a user runs it."""

import json
from pathlib import Path

import numpy as np
import pytest

from hf_matryoshka.cli.options import load_yaml
from hf_matryoshka.data.vectors import save_vectors
from hf_matryoshka.recipes.funnel_recipe import FunnelRecipe
from hf_matryoshka.recipes.train_funnel import build_config
from hf_matryoshka.recipes.training_run import run_arguments
from hf_matryoshka.trainers.funnel_arguments import FunnelTrainingArguments


ROOT = Path(__file__).parents[2]
NAMED = FunnelRecipe.__dataclass_fields__


@pytest.fixture
def vectors(tmp_path):
    save_vectors(np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32), tmp_path / "x.npy")
    return tmp_path / "x.npy"


def test_train_and_refuse(command, vectors, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(f"vectors: {vectors}\nmax_steps: 5\nencoder_sizes: [8]\npredictor_sizes: [8]\n")
    options = ["--config", config, "--matryoshka_dims", 4, 8, "--decoder-sizes", "8,8", "--kind", "cascade"]
    options += ["--per_device_train_batch_size", 32, "--max_steps=2", "--use_cpu", "--disable_tqdm", "True"]
    options += ["--cascade_weight", 0.5, "--progressive"]
    run = tmp_path / "run"
    status, output, error = command("train", "funnel", run, *options)
    assert status == 0, error
    assert "parameters, 2 steps" in output and f"Funnel: {run / 'model'}" in output
    assert "d4: reconstruction 0." in output and "(PCA 0." in output
    report = json.loads((run / "training.json").read_text())
    assert report["recipe"]["decoder_sizes"] == [8, 8] and report["training"]["cascade_weight"] == 0.5
    assert report["training"]["progressive"] is True and "gates" not in report
    status, output, _ = command("train", "funnel", run, *options, "--json")
    assert status == 0 and json.loads(output)["steps"] == 2
    status, _, error = command("train", "funnel", run, *options, "--seed", 3)
    assert status == 2 and "holds other files or a run with other data or options" in error


def test_bad_input_is_one_sentence(command, vectors, tmp_path):
    def error(*flags, given=("--vectors", vectors)):
        status, _, message = command("train", "funnel", tmp_path / "run", *given, *flags)
        assert status == 2 and not (tmp_path / "run").exists()
        return " ".join(message.replace("│", " ").split())

    assert "only 16 dimensions can be encoded" in error("--matryoshka_dims", 4, 32)
    assert "must be positive and strictly increasing" in error("--matryoshka_dims", "8,4")
    assert "kind 'vae' does not exist; choose one of" in error("--kind", "vae")
    assert "unknown option '--budgets'; see hf-matryoshka train funnel --help" in error("--budgets", "1")
    assert "no vectors file at" in error(given=["--vectors", tmp_path / "none.npy"])
    assert "give texts" in error(given=[])
    bad = np.ones((50, 8), dtype=np.float32)
    np.save(tmp_path / "bad.npy", np.where(np.arange(50)[:, None] == 7, np.nan, bad))
    assert "got NaN in row 7" in error(given=["--vectors", tmp_path / "bad.npy"])


@pytest.mark.parametrize("name", ["funnel_minilm", "funnel_original", "funnel_flow"])
def test_the_yaml_files_of_the_repo_are_valid(name, tmp_path):
    values = load_yaml(ROOT / "configs" / f"{name}.yaml", FunnelRecipe, FunnelTrainingArguments)
    recipe = FunnelRecipe(**{key: value for key, value in values.items() if key in NAMED})
    training = {key: value for key, value in values.items() if key not in NAMED}
    run_arguments(FunnelTrainingArguments, tmp_path, recipe, training | {"use_cpu": True})
    assert build_config(recipe, 384).levels == tuple(f"d{dim}" for dim in range(16, 129, 16))
    assert not any(Path(path).is_absolute() for path in recipe.texts)


def test_every_option_has_a_help_text(command):
    assert all(item.metadata.get("help") for item in NAMED.values())
    status, output, _ = command("train", "funnel", "--help")
    assert status == 0 and "--matryoshka-dims" in output and "--funnel-path" in output
