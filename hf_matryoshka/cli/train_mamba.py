"""`hf-matryoshka train mamba`."""

from typing import Any

import typer

from ..recipes.mamba_recipe import MambaRecipe
from .options import JsonFlag
from .train_options import ConfigFile, Overwrite, RunFolder, print_losses, print_report, read_options


def train_mamba(
    context: typer.Context,
    output: RunFolder,
    config: ConfigFile = None,
    overwrite: Overwrite = False,
    json: JsonFlag = False,
    *,
    flags: dict[str, Any],
) -> None:
    """Distil a sentence encoder into a Mamba encoder, at every width and output dimension; the same call resumes an
    interrupted run.

    Every field of MambaTrainingArguments (and so of transformers.TrainingArguments) is a flag too, for example
    --learning_rate 5e-4 --dim_curriculum bottom_up. Flags win over the YAML file.

    Example: hf-matryoshka train mamba runs/mamba --config configs/mamba_minilm.yaml
    """
    from ..recipes.train_mamba import train_mamba as run
    from ..trainers.mamba_arguments import MambaTrainingArguments

    recipe, training = read_options(context, config, flags, MambaRecipe, MambaTrainingArguments)
    trained = run(recipe, output, training=training, overwrite=overwrite)
    print_report(trained.report, output / "model", json, _print_levels)


def _print_levels(report: dict[str, Any]) -> None:
    print_losses(report)
    for level, dims in report.get("spearman_to_teacher", {}).items():
        shown = ", ".join(f"{dim} {value:.3f}" for dim, value in dims.items())
        print(f"{level}: rank agreement with the teacher {shown}")
