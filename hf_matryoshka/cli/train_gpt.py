"""`hf-matryoshka train gpt` and `hf-matryoshka train fractal`."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from ..recipes.fractal_recipe import FractalRecipe
from ..recipes.gpt_recipe import GPTRecipe
from .options import JsonFlag, load_yaml, print_json
from .training_flags import training_flags


def train_gpt(
    context: typer.Context,
    output: Annotated[Path, typer.Argument(help="Folder for the run; the model will be in its model/ folder.")],
    config: Annotated[Path | None, typer.Option(help="YAML file with options of the recipe and the training.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Delete another run that lies in the output folder.")] = False,
    json: JsonFlag = False,
    *,
    flags: dict[str, Any],
) -> None:
    """Train a decoder at all its sizes, from random weights or from a Llama; the same call resumes an interrupted run.

    Every field of HierarchyTrainingArguments (and so of transformers.TrainingArguments) is a flag too, for example
    --learning_rate 5e-4 --kd_weight 0.5. Flags win over the YAML file.

    Example: hf-matryoshka train gpt runs/gpt --config configs/gpt_shakespeare.yaml
    """
    _train(context, output, config, overwrite, json, flags, GPTRecipe, "train gpt")


def train_fractal(
    context: typer.Context,
    output: Annotated[Path, typer.Argument(help="Folder for the run; the model will be in its model/ folder.")],
    config: Annotated[Path | None, typer.Option(help="YAML file with options of the recipe and the training.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Delete another run that lies in the output folder.")] = False,
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
    _train(context, output, config, overwrite, json, flags, FractalRecipe, "train fractal")


def _train(
    context: typer.Context,
    output: Path,
    config: Path | None,
    overwrite: bool,
    json: bool,
    flags: dict[str, Any],
    recipe_class: type[GPTRecipe],
    command: str,
) -> None:
    from ..recipes.train_gpt import train_gpt as run
    from ..trainers.hierarchy_arguments import HierarchyTrainingArguments as Arguments

    named = recipe_class.__dataclass_fields__
    values = load_yaml(config, recipe_class, Arguments)
    training = {name: value for name, value in values.items() if name not in named}
    training |= training_flags(context.args, Arguments, command)
    recipe = recipe_class(**{name: value for name, value in values.items() if name in named} | flags)
    trained = run(recipe, output, training=training, overwrite=overwrite)
    if json:
        print_json({"model": output / "model", **trained.report})
        return
    for level, after in trained.report.get("after", {}).items():
        before = trained.report["before"][level]
        print(f"{level}: loss {before:.4f} -> {after:.4f}, perplexity {math.exp(after):.4g} (held-out text)")
    print(f"Model: {output / 'model'}")
