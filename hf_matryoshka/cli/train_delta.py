"""`hf-matryoshka train delta`."""

from typing import Any

import typer

from ..data.yaml_mapping import read_mapping
from ..recipes.delta_embedding_recipe import DeltaEmbeddingRecipe
from ..recipes.delta_recipe import OBJECTIVES, DeltaRecipe
from .options import JsonFlag
from .train_options import ConfigFile, Overwrite, RunFolder, print_losses, print_report, read_options


# Names of the original command line.
ALIASES = {
    "--train_steps": "--max_steps",
    "--batch_size": "--per_device_train_batch_size",
    "--lr": "--learning_rate",
}
EXPORTS = ("--load_path", "--export_only", "--export_budgets")


def train_delta(
    context: typer.Context,
    output: RunFolder,
    config: ConfigFile = None,
    overwrite: Overwrite = False,
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
    context.args = _renamed(context.args)
    # Its other keys are looked at when the objective is known.
    given = {} if config is None else read_mapping(config)
    recipe_class: Any
    objective = flags.get("objective") or given.get("objective", OBJECTIVES[0])
    if objective == "embedding":
        from ..recipes.train_delta_embedding import train_delta_embedding as run
        from ..trainers.delta_embedding_arguments import DeltaEmbeddingTrainingArguments as Arguments

        recipe_class = DeltaEmbeddingRecipe
    else:
        from ..recipes.train_delta import train_delta as run  # type: ignore[assignment]
        from ..trainers.delta_arguments import DeltaTrainingArguments as Arguments

        recipe_class = DeltaRecipe
    for name in flags:
        if name not in recipe_class.__dataclass_fields__:
            raise ValueError(f"--{name.replace('_', '-')} is no option of objective {objective!r}")
    recipe, training = read_options(context, config, flags, recipe_class, Arguments)
    trained = run(recipe, output, training=training, overwrite=overwrite)
    print_report(trained.report, output / "model", json, print_losses)


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
