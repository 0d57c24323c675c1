"""`hf-matryoshka train delta`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..recipes.delta_embedding_recipe import DeltaEmbeddingRecipe
from ..recipes.delta_recipe import OBJECTIVES, DeltaRecipe
from .options import JsonFlag, load_yaml, print_json
from .training_flags import training_flags


# Names of the original command line.
ALIASES = {
    "--train_steps": "--max_steps",
    "--batch_size": "--per_device_train_batch_size",
    "--lr": "--learning_rate",
}
EXPORTS = ("--load_path", "--export_only", "--export_budgets")


def train_delta(
    context: typer.Context,
    output: Annotated[Path, typer.Argument(help="Folder for the run; the model will be in its model/ folder.")],
    config: Annotated[Path | None, typer.Option(help="YAML file with options of the recipe and the training.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Delete another run that lies in the output folder.")] = False,
    json: JsonFlag = False,
    *,
    flags: dict[str, Any],
) -> None:
    """Train one text encoder at every budget of width, heads and depth; the same call resumes an interrupted run.

    With objective masked_lm every field of DeltaTrainingArguments (and so of transformers.TrainingArguments) is a flag
    too, for example --learning_rate 1e-3 --enable_cscf; with objective embedding every field of
    DeltaEmbeddingTrainingArguments. Flags win over the YAML file.

    Example: hf-matryoshka train delta runs/scratch --config configs/delta_from_scratch.yaml
    """
    arguments = _renamed(context.args)
    objective = flags.get("objective") or _objective(config)
    if objective == "embedding":
        from ..recipes.train_delta_embedding import train_delta_embedding as run
        from ..trainers.delta_embedding_arguments import DeltaEmbeddingTrainingArguments as Arguments

        recipe_class = DeltaEmbeddingRecipe
    else:
        from ..recipes.train_delta import train_delta as run
        from ..trainers.delta_arguments import DeltaTrainingArguments as Arguments

        recipe_class = DeltaRecipe
    named = recipe_class.__dataclass_fields__
    for name in flags:
        if name not in named:
            raise ValueError(f"--{name.replace('_', '-')} is no option of objective {objective!r}")
    values = load_yaml(config, recipe_class, Arguments)
    training = {name: value for name, value in values.items() if name not in named}
    training |= training_flags(arguments, Arguments, "train delta")
    recipe = recipe_class(**{name: value for name, value in values.items() if name in named} | flags)
    trained = run(recipe, output, training=training, overwrite=overwrite)
    if json:
        print_json({"model": output / "model", **trained.report})
        return
    for level, after in trained.report.get("after", {}).items():
        print(f"{level}: loss {trained.report['before'][level]:.4f} -> {after:.4f} (held-out texts)")
    print(f"Model: {output / 'model'}")


def _objective(config: Path | None) -> str:
    """The objective that a YAML file names, the default one otherwise; its other keys are looked at later."""
    if config is None:
        return OBJECTIVES[0]
    import yaml

    if not config.is_file():
        raise FileNotFoundError(f"config {config} does not exist")
    try:
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        values = None
    return values.get("objective", OBJECTIVES[0]) if isinstance(values, dict) else OBJECTIVES[0]


def _renamed(arguments: list[str]) -> list[str]:
    """Flags of the original command line under the names that they have here."""
    renamed = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        plain = "--" + name.removeprefix("--").replace("-", "_")
        if plain in EXPORTS:
            raise ValueError(
                f"{name} belongs to exporting: use `hf-matryoshka export RUN OUT --budgets 0.5:6:6 1.0:12:12` on the "
                "folder of the run"
            )
        renamed.append(ALIASES.get(plain, name) + equals + value)
    return renamed
