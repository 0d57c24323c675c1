"""Each width and each output dimension of the Mamba encoder beside a model trained for it alone, on the same budget.

    python benchmarks/mamba_alone.py --out benchmarks/results/mamba_alone.json

Smaller than `benchmarks/mamba_quality.py`, whose recipe it is (configs/mamba_minilm.yaml): at most 2,000 texts and
1,000 sentences a file, cut to 64 tokens, 300 steps of 64 texts. `nested` has all widths and dimensions and computes
one random width a step. Every rival has one width with all dimensions (`width ...`: as many heads and columns as that
level), or the full width with one dimension (`dim ...`), and as many steps as the nested model in all, on the same
texts, from the same start (`start_as_bag_of_words`; other random blocks where the sizes differ). So the nested model
computed a width only in the share of the steps that `level_probabilities` says, and its rival in all.

Spearman correlation of cosine and score on the STS-B test split, mean over the seeds (`per_seed`); `minus_alone`,
nested less rival at the same width and dimension, with a 95% interval: over the pairs of sentences where there is one
seed, over the seeds, paired, where there are several. Nothing was chosen by these scores.
"""

import argparse
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from stsb import SentencePairs, encoder

from hf_matryoshka.cli.options import load_yaml
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.seed_interval import seed_interval
from hf_matryoshka.evaluation.table import format_rows
from hf_matryoshka.recipes.mamba_recipe import MambaRecipe
from hf_matryoshka.recipes.train_mamba import train_mamba
from hf_matryoshka.trainers.mamba_arguments import MambaTrainingArguments


CONFIG = Path(__file__).parents[1] / "configs" / "mamba_minilm.yaml"
TEXTS = {"max_texts_per_file": 2000, "max_sentences_per_file": 1000}
LENGTH, STEPS, BATCH = 64, 300, 64


def alone(recipe: MambaRecipe) -> dict[str, tuple[MambaRecipe, str, list[int]]]:
    """For each rival its recipe, and the width and the dimensions of the nested model that it stands beside."""
    heads, columns = 2 * recipe.hidden_size // recipe.head_dim, 2 * recipe.hidden_size
    found = {}
    for width in recipe.widths:
        sizes = {"num_heads": round(width * heads), "intermediate_size": round(width * columns), "widths": [1.0]}
        found[f"width {width:g}"] = replace(recipe, **sizes), f"w{width}", recipe.matryoshka_dims
    for dim in recipe.matryoshka_dims:
        found[f"dim {dim}"] = replace(recipe, widths=[1.0], matryoshka_dims=[dim]), "w1.0", [dim]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", type=Path, help="folder with stsb/")
    parser.add_argument("--work", default="outputs/mamba_alone", type=Path)
    parser.add_argument("--seeds", default=1, type=int)
    parser.add_argument("--steps", default=STEPS, type=int)
    parser.add_argument("--systems", nargs="*", help="rivals to train and score; all by default")
    parser.add_argument("--out", default="benchmarks/results/mamba_alone.json")
    arguments = parser.parse_args()

    values = load_yaml(CONFIG, MambaRecipe, MambaTrainingArguments)
    own = {item.name for item in fields(MambaRecipe)}
    base = MambaRecipe(**{name: value for name, value in values.items() if name in own})
    training = {name: value for name, value in values.items() if name not in own}
    training |= {"max_steps": arguments.steps, "per_device_train_batch_size": BATCH}
    training |= {"warmup_steps": max(1, arguments.steps // 20), "activation_checkpointing": False}
    pairs = SentencePairs(arguments.data / "stsb" / "stsb-en-test.csv")
    cosines: dict[tuple[str, str, int], list[np.ndarray]] = {}
    scores: dict[tuple[str, str, int], list[dict[str, float]]] = {}
    seconds: dict[str, list[float]] = {}
    rivals = {name: one for name, one in alone(base).items() if name in (arguments.systems or [name])}

    def run(name: str, recipe: MambaRecipe, training: dict[str, Any]) -> SentenceTransformer:
        folder = arguments.work / f"{name.replace(' ', '_')}_s{recipe.seed}"
        report = train_mamba(recipe, folder, training).report
        seconds.setdefault(name, []).append(report["seconds"] if not report["resumed_from_step"] else None)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return SentenceTransformer(str(folder / "model"), trust_remote_code=True, device="cpu")

    def measure(name: str, level: str, dims: list[int], model: SentenceTransformer) -> None:
        # A model trained alone has one level.
        own = {"level": level} if name == "nested" else {}
        vectors = pairs.encode(encoder(model, **own))
        for dim in dims:
            cosines.setdefault((name, level, dim), []).append(pairs.cosines(vectors, dim))
            scores.setdefault((name, level, dim), []).append(pairs.score(vectors, dim))
        found = {dim: round(100 * scores[name, level, dim][-1]["value"], 2) for dim in dims}
        print(f"{name:>10} {level:>6} STS-B", found, flush=True)

    for seed in range(arguments.seeds):
        recipe = replace(base, **TEXTS, max_length=LENGTH, seed=seed)
        nested = run("nested", recipe, training)
        for level in nested[0].model.config.levels:
            measure("nested", level, recipe.matryoshka_dims, nested)
        for name in rivals:
            rival, level, dims = alone(recipe)[name]
            # One level: nothing to draw.
            plain = {key: value for key, value in training.items() if not key.startswith("level")}
            measure(name, level, dims, run(name, rival, plain))

    rows: list[dict[str, Any]] = []
    for (name, level, dim), found in scores.items():
        per_seed = [one["value"] for one in found]
        system = "ours" if name == "nested" else "independent"
        row = {"system": system, "trained_for": name, "width": level, "level": f"d{dim}", "split": "stsb_test"}
        row["seeds"] = len(found)
        rows.append(row | {"metric": "spearman", **summary(found), "per_seed": per_seed})
        if name == "nested":
            continue
        differences = [
            pairs.difference(ours, theirs)
            for ours, theirs in zip(cosines["nested", level, dim], cosines[name, level, dim], strict=True)
        ]
        per_seed = [one["value"] for one in differences]
        rows.append(row | {"metric": "minus_alone", **summary(differences), "per_seed": per_seed})
    table = [
        [row["trained_for"], row["width"], row["level"]]
        + [f"{100 * row[name]:+.2f}" for name in ("value", "low", "high")]
        for row in rows
        if row["metric"] == "minus_alone"
    ]
    print("\n" + format_rows(["rival", "width", "dimension", "nested - rival", "low", "high"], table))
    print(write_report(arguments.out, "mamba_alone", rows, training=training, seconds=seconds))


def summary(found: list[dict[str, float]]) -> dict[str, float]:
    return found[0] if len(found) == 1 else seed_interval([one["value"] for one in found])


if __name__ == "__main__":
    main()
