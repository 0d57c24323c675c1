"""`hf-matryoshka train gpt` and `hf-matryoshka train fractal`."""

import math
from pathlib import Path
from typing import Any

import typer

from ..recipes.fractal_recipe import FractalRecipe
from ..recipes.gpt_recipe import GPTRecipe
from .options import JsonFlag
from .train_options import ConfigFile, Overwrite, RunFolder, print_report, read_options


def train_gpt(
    context: typer.Context,
    output: RunFolder,
    config: ConfigFile = None,
    overwrite: Overwrite = False,
    json: JsonFlag = False,
    *,
    flags: dict[str, Any],
) -> None:
    """Train a decoder at all its sizes, from random weights or from a Llama; the same call resumes an interrupted run.

    Every field of HierarchyTrainingArguments (and so of transformers.TrainingArguments) is a flag too, for example
    --learning_rate 5e-4 --kd_weight 0.5. Flags win over the YAML file.

    Example: hf-matryoshka train gpt runs/gpt --config configs/gpt_shakespeare.yaml
    """
    _train(context, output, config, overwrite, json, flags, GPTRecipe)


def train_fractal(
    context: typer.Context,
    output: RunFolder,
    config: ConfigFile = None,
    overwrite: Overwrite = False,
    json: JsonFlag = False,
    *,
    flags: dict[str, Any],
) -> None:
    """Train decoders side by side inside decoders, each on its own stream of texts, all in one run; the same call
    resumes an interrupted run.

    Every field of MatryoshkaGPTTrainingArguments (and so of transformers.TrainingArguments) is a flag too. Flags win
    over the YAML file.

    Example: hf-matryoshka train fractal runs/fractal --config configs/fractal.yaml
    """
    _train(context, output, config, overwrite, json, flags, FractalRecipe)


def _train(
    context: typer.Context,
    output: Path,
    config: Path | None,
    overwrite: bool,
    json: bool,
    flags: dict[str, Any],
    recipe_class: type[GPTRecipe],
) -> None:
    from ..recipes.train_gpt import train_gpt as run
    from ..trainers.hierarchy_arguments import HierarchyTrainingArguments

    recipe, training = read_options(context, config, flags, recipe_class, HierarchyTrainingArguments)
    trained = run(recipe, output, training=training, overwrite=overwrite)
    print_report(trained.report, output / "model", json, _print_levels)


def _print_levels(report: dict[str, Any]) -> None:
    for level, after in report.get("after", {}).items():
        before = report["before"][level]
        print(f"{level}: loss {before:.4f} -> {after:.4f}, perplexity {math.exp(after):.4g} (held-out text)")
