"""`hf-matryoshka train funnel`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..recipes.funnel_recipe import FunnelRecipe
from .options import JsonFlag
from .train_options import ConfigFile, Overwrite, print_report, read_options


def train_funnel(
    context: typer.Context,
    output: Annotated[Path, typer.Argument(help="Folder for the run; the funnel will be in its model/ folder.")],
    config: ConfigFile = None,
    overwrite: Overwrite = False,
    json: JsonFlag = False,
    *,
    flags: dict[str, Any],
) -> None:
    """Train a funnel, which encodes embeddings in stages and decodes them from the first stages alone; the same call
    resumes an interrupted run.

    Every field of FunnelTrainingArguments (and so of transformers.TrainingArguments) is a flag too, for example
    --learning_rate 5e-4 --prefix_weights sqrt. Flags win over the YAML file.

    Example: hf-matryoshka train funnel runs/funnel --config configs/funnel_minilm.yaml
    """
    from ..recipes.train_funnel import train_funnel as run
    from ..trainers.funnel_arguments import FunnelTrainingArguments

    recipe, training = read_options(context, config, flags, FunnelRecipe, FunnelTrainingArguments)
    trained = run(recipe, output, training=training, overwrite=overwrite)
    print_report(trained.report, output / "model", json, _print_stages, "Funnel")


def _print_stages(report: dict[str, Any]) -> None:
    print(f"{report['parameters']:,} parameters, {report['steps']} steps")
    found = report.get("reconstruction", {})
    for level, value in found.get("ours", {}).items():
        beside = f" (PCA {found['pca'][level]:.4f})" if "pca" in found else ""
        print(f"{level}: reconstruction {value:.4f}{beside} on test embeddings")
