"""An ablation from its YAML file to its table."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from hf_matryoshka.recipes import ablate, ablation_data
from hf_matryoshka.recipes.ablate import run_ablation
from hf_matryoshka.recipes.ablation_plan import read_ablation
from hf_matryoshka.recipes.delta_model import build_config
from hf_matryoshka.recipes.delta_recipe import DeltaRecipe


ROOT = Path(__file__).parents[2]
BASE = """
vocab_size: 290
hidden_size: 16
num_hidden_layers: 2
num_attention_heads: 2
intermediate_size: 16
max_length: 32
validation_fraction: 0.2
budgets: [[0.5, 2, 1], [1.0, 2, 2]]
max_steps: 2
per_device_train_batch_size: 4
learning_rate: 0.01
disable_tqdm: true
use_cpu: true
"""
VARIANTS = """
variants:
  - name: plain
  - name: no distillation
    enable_kd: false
  - name: deeper
    budgets: [[1.0, 2, 2]]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Texts and the base of ablations."""
    folder, rng = tmp_path_factory.mktemp("ablation"), random.Random(0)
    words = "the cat dog bird fish river city gene cell protein".split()
    lines = [" ".join(rng.choices(words, k=rng.randint(3, 20))) for _ in range(90)]
    (folder / "texts.txt").write_text("\n".join(lines) + "\n")
    (folder / "base.yaml").write_text(f"texts: [{folder / 'texts.txt'}]\n{BASE}")
    return folder


def plan(folder, text, name="study.yaml"):
    (folder / name).write_text(f"base: base.yaml\n{text}")
    return read_ablation(folder / name)


@pytest.fixture(scope="module")
def finished(folder):
    ablation = plan(folder, f"seeds: 2\n{VARIANTS}")
    return ablation, run_ablation(ablation, folder / "runs", folder / "out.json", progress=False)


def test_a_grid_is_every_combination(folder):
    grid = "{enable_cscf: [false, true], rho_mug: [0.1, 0.2], max_length: [16]}"
    ablation = plan(folder, f"options: {{max_steps: 3, zeta_cscf: 0.3}}\ngrid: {grid}\n")
    assert [variant.name for variant in ablation.variants] == [
        "enable_cscf=False, rho_mug=0.1, max_length=16",
        "enable_cscf=False, rho_mug=0.2, max_length=16",
        "enable_cscf=True, rho_mug=0.1, max_length=16",
        "enable_cscf=True, rho_mug=0.2, max_length=16",
    ]
    assert ablation.seeds == [0] and ablation.name == "study"
    last = ablation.variants[-1]
    assert last.recipe.max_length == 16 and last.recipe.hidden_size == 16
    assert last.training["enable_cscf"] and last.training["rho_mug"] == 0.2
    assert last.training["max_steps"] == 3 and ablation.base["zeta_cscf"] == 0.3
    assert last.changes == {"enable_cscf": True, "rho_mug": 0.2, "max_length": 16}


def test_every_variant_is_compared_with_the_first(folder, finished):
    ablation, result = finished
    report = json.loads((folder / "out.json").read_text())
    assert result.path == folder / "out.json" and report["rows"] == result.rows and report["name"] == "study"
    assert report["base"] == ablation.base and report["variants"]["no distillation"] == {"enable_kd": False}

    def values(system, metric, level="all"):
        wanted = (system, metric, level)
        return [row for row in result.rows if (row["system"], row["metric"], row["level"]) == wanted]

    levels = ["w0.5-h2-d1", "w1.0-h2-d2"]
    for level in levels:
        plain, other = (
            np.array([row["value"] for row in values(name, "nll", level)]) for name in ("plain", "no distillation")
        )
        assert len(plain) == 2 and plain[0] != plain[1] and (plain != other).all()
        (row,) = values("no distillation", "nll_minus_plain", level)
        difference = other - plain
        half = stats.t.ppf(0.975, 1) * difference.std(ddof=1) / np.sqrt(2)
        assert [row["value"], row["low"], row["high"]] == pytest.approx(
            [difference.mean(), difference.mean() - half, difference.mean() + half]
        )
        assert row["seeds"] == 2 and f"{plain.mean():.4f}" in result.table
    # One seed has the same rows and masks in each variant, and its own order and weights.
    assert [row["seed"] for row in values("plain", "nll", levels[0])] == [0, 1]
    assert not values("plain", "nll_minus_plain", levels[0])
    # The levels of the last variant are others: no area to compare, and only the shared level has a difference.
    assert len(values("no distillation", "autc_minus_plain")) == 1 and not values("deeper", "autc_minus_plain")
    assert len(values("deeper", "nll_minus_plain", levels[1])) == 1
    assert values("deeper", "autc")[0]["value"] is None
    assert all(row["value"] > 0 for row in values("plain", "seconds"))
    head, _, *lines = result.table.splitlines()
    assert head.split("  ")[0] == "variant" and "NLL w0.5-h2-d1" in head and "AUTC" in head
    assert lines[-1] == (
        "Means over 2 seeds on held-out rows; in brackets the difference to 'plain', paired by seed, with its 95% "
        "t-interval."
    )
    count = sum(row["value"] for row in values("plain", "violations"))
    assert f"{count}/2" in lines[0] and "0/0" in lines[2] and " -  " in lines[2]


def test_texts_are_packed_once_and_finished_runs_are_taken(folder, finished, monkeypatch):
    ablation, result = finished
    assert len(list((folder / "runs" / "data").iterdir())) == 1
    assert not list((folder / "runs").rglob("checkpoint-*"))
    monkeypatch.setattr(ablate, "train_delta", None)
    real, order = ablate._run, []
    monkeypatch.setattr(ablate, "_run", lambda *given: order.append((given[1], given[0].name)) or real(*given))
    again = run_ablation(ablation, folder / "runs", progress=False)
    assert again.rows == result.rows and again.path == folder / "runs" / "study.json"
    # Seed after seed: what there is of an interrupted call is paired.
    assert order == [(seed, variant.name) for seed in (0, 1) for variant in ablation.variants]
    one = run_ablation(ablation, folder / "runs", seeds=[1], progress=False)
    assert [row["value"] for row in one.rows if row["metric"] == "nll"] == [
        row["value"] for row in result.rows if row.get("seed") == 1 and row["metric"] == "nll"
    ]
    assert all(row["low"] is None for row in one.rows) and "interval" not in one.table


def test_an_interrupted_ablation_goes_on(folder, finished, monkeypatch, tmp_path):
    ablation, result = finished
    real, calls = ablate.train_delta, []

    def train(recipe, output, training):
        calls.append((output.parent.name.rsplit("-", 1)[0], recipe.seed))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(recipe, output, training)

    monkeypatch.setattr(ablate, "train_delta", train)
    corpus, read = ablation_data.Corpus, []
    monkeypatch.setattr(ablation_data, "Corpus", lambda recipe: read.append(recipe) or corpus(recipe))
    with pytest.raises(KeyboardInterrupt):
        run_ablation(ablation, tmp_path, seeds=[0], progress=False)
    assert not list(tmp_path.glob("*.json"))
    again = run_ablation(ablation, tmp_path, seeds=[0], progress=False)
    assert [name for name, _ in calls] == ["plain", "no-distillation", "no-distillation", "deeper"]
    assert len(read) == 1
    expected = [row["value"] for row in result.rows if row.get("seed") == 0 and row["metric"] == "nll"]
    assert [row["value"] for row in again.rows if row["metric"] == "nll"] == pytest.approx(expected, abs=1e-5)


def test_what_fails_while_it_runs_names_its_variant(folder, tmp_path):
    ablation = plan(folder, "variants:\n  - name: too deep\n    enable_cscf: true\n    tap_layers: [7]\n")
    with pytest.raises(ValueError, match="variant 'too deep': tap_layers has 7, but the model has the layers 0 to 1"):
        run_ablation(ablation, tmp_path, progress=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs variants or grid, and not both"),
        ("variants: []\n", "has no variants; give at least one"),
        ("variants:\n", "has no variants; give at least one"),
        ("grid: {}\n", "has no variants"),
        ("variants: [{name: a}]\ngrid: {rho_mug: [1]}\n", "needs variants or grid, and not both"),
        ("variants: [{name: a}, {name: a, rho_mug: 1}]\n", "has two variants with the name 'a'"),
        ("grid: {rho_mug: [1, 1]}\n", "has two variants with the name 'rho_mug=1'"),
        ("variants: [{rho_mug: 1}]\n", "must have a name and options, but one is"),
        ("variants: [{name: a, roh_mug: 1}]\n", "variant 'a' has the unknown option 'roh_mug'; did you mean rho_mug"),
        ("variants: [{name: a, output_dir: x}]\n", "unknown option 'output_dir'"),
        ("variants: [{name: a, seed: 1}]\n", "variant 'a' sets seed, which all variants share"),
        ("variants: [{name: a, rho_mug: -1}]\n", "variant 'a': rho_mug must not be negative"),
        ("variants: [{name: a, budgets: [[1.0, 1, 1]]}]\n", "variant 'a': the last budget must be the full size"),
        ("variants: [{name: a, validation_fraction: 0}]\n", "variant 'a': nothing is held out to compare on"),
        ("grid: {rho_mug: 1}\n", "must have a list of values for each option"),
        ("variants: [{name: a}]\nseeds: [0, 0]\n", "must be different whole numbers, or how many"),
        ("variants: [{name: a}]\nseeds: 0\n", "must be different whole numbers"),
        ("variants: [{name: a}]\nseeds: [a]\n", "must be different whole numbers"),
        ("variants: [{name: a}]\nsteps: 3\n", "has the unknown key 'steps'; it may have base, options, variants"),
        ("variants: [{name: a}]\noptions: {rho: 3}\n", "bad.yaml has the unknown option 'rho'"),
        ("variants: [{name: a}]\noptions: [3]\n", "must map names to values, but are"),
        ("variants: [a\n", "is no YAML"),
    ],
)
def test_bad_files_are_one_sentence(folder, text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        plan(folder, text, "bad.yaml")
    assert not list(tmp_path.iterdir())


def test_bad_bases_are_one_sentence(tmp_path):
    def error(text, kind=ValueError):
        (tmp_path / "bad.yaml").write_text(f"{text}\nvariants: [{{name: a}}]\n")
        with pytest.raises(kind) as found:
            read_ablation(tmp_path / "bad.yaml")
        return str(found.value)

    assert "needs base: the options of a training, or the name" in error("")
    assert "none.yaml does not exist" in error("base: none.yaml", FileNotFoundError)
    assert "the base of" in error("base: {lr: 1}") and "unknown option 'lr'" in error("base: {lr: 1}")
    assert "objective 'embedding' has no ablation" in error("base: {objective: embedding, texts: [a.txt]}")
    with pytest.raises(FileNotFoundError, match="none.yaml does not exist"):
        read_ablation(tmp_path / "none.yaml")


def test_the_ablations_of_the_repo_are_valid():
    ablation = read_ablation(ROOT / "configs" / "ablations.yaml")
    assert ablation.variants[0].changes == {} and len(ablation.seeds) >= 5
    changed = [name for variant in ablation.variants for name in variant.changes]
    assert {"enable_kd", "enable_cscf", "enable_mug", "enable_delta_depth", "enable_three_phase"} <= set(changed)
    assert {"budget_norms", "enable_delta_residual"} <= set(changed)


def test_the_base_of_budgets():
    def budgets(**options):
        shape = {"hidden_size": 48, "num_hidden_layers": 12, "num_attention_heads": 12}
        config, _ = build_config(DeltaRecipe(**{"texts": ["a"], **shape, **options}), None)
        return config.budgets

    # The budgets of the original's command line.
    whole = [[0.5, 6, 6], [0.75, 9, 9], [1.0, 12, 12]]
    assert budgets(base_ratio=0.5, base_heads=6) == budgets(base_heads=6) == whole
    assert budgets(base_ratio=0.25) == [[0.25, 12, 6], [0.625, 12, 9], [1.0, 12, 12]]
    assert budgets(base_ratio=0.25, residual="joint") == [[0.25, 6, 6], [0.625, 9, 9], [1.0, 12, 12]]
    one = {"num_hidden_layers": 1, "base_ratio": 1.0, "base_heads": 12}
    assert budgets(**one) == [[1.0, 12, 1]]
    with pytest.raises(ValueError, match="base_heads 13 is more than the 12 heads of the model"):
        budgets(base_heads=13)
    for options, message in (
        ({"base_ratio": 0.5, "budgets": whole}, "give budgets, or base_ratio and base_heads"),
        ({"base_ratio": 1.5}, "base_ratio must be above 0 and up to 1"),
        ({"base_heads": 0}, "base_heads must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            budgets(**options)


def test_budget_norms_reach_the_config():
    shape = {"texts": ["a"], "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}
    for given, found in ((None, False), (False, False), (True, True)):
        assert build_config(DeltaRecipe(**shape, budget_norms=given), None)[0].budget_norms is found
