"""`hf-matryoshka train mamba`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..recipes.mamba_recipe import MambaRecipe
from .options import JsonFlag, load_yaml, print_json
from .training_flags import training_flags


def train_mamba(
    context: typer.Context,
    output: Annotated[Path, typer.Argument(help="Folder for the run; the model will be in its model/ folder.")],
    config: Annotated[Path | None, typer.Option(help="YAML file with options of the recipe and the training.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Delete another run that lies in the output folder.")] = False,
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

    named = MambaRecipe.__dataclass_fields__
    values = load_yaml(config, MambaRecipe, MambaTrainingArguments)
    training = {name: value for name, value in values.items() if name not in named}
    training |= training_flags(context.args, MambaTrainingArguments, "train mamba")
    recipe = MambaRecipe(**{name: value for name, value in values.items() if name in named} | flags)
    trained = run(recipe, output, training=training, overwrite=overwrite)
    if json:
        print_json({"model": output / "model", **trained.report})
        return
    for level, after in trained.report.get("after", {}).items():
        print(f"{level}: loss {trained.report['before'][level]:.4f} -> {after:.4f} (held-out texts)")
    for level, dims in trained.report.get("spearman_to_teacher", {}).items():
        shown = ", ".join(f"{dim} {value:.3f}" for dim, value in dims.items())
        print(f"{level}: rank agreement with the teacher {shown}")
    print(f"Model: {output / 'model'}")
