"""`hf-matryoshka train funnel`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..recipes.funnel_recipe import FunnelRecipe
from .options import JsonFlag, load_yaml, print_json
from .training_flags import training_flags


def train_funnel(
    context: typer.Context,
    output: Annotated[Path, typer.Argument(help="Folder for the run; the funnel will be in its model/ folder.")],
    config: Annotated[Path | None, typer.Option(help="YAML file with options of the recipe and the training.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Delete another run that lies in the output folder.")] = False,
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

    named = FunnelRecipe.__dataclass_fields__
    values = load_yaml(config, FunnelRecipe, FunnelTrainingArguments)
    training = {name: value for name, value in values.items() if name not in named}
    training |= training_flags(context.args, FunnelTrainingArguments, "train funnel")
    recipe = FunnelRecipe(**{name: value for name, value in values.items() if name in named} | flags)
    trained = run(recipe, output, training=training, overwrite=overwrite)
    if json:
        print_json({"model": output / "model", **trained.report})
        return
    print(f"{trained.report['parameters']:,} parameters, {trained.report['steps']} steps")
    found = trained.report.get("reconstruction", {})
    for level, value in found.get("ours", {}).items():
        beside = f" (PCA {found['pca'][level]:.4f})" if "pca" in found else ""
        print(f"{level}: reconstruction {value:.4f}{beside} on test embeddings")
    print(f"Funnel: {output / 'model'}")
