"""What all `hf-matryoshka train ...` commands take and print."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from .command import print_json
from .options import load_yaml
from .training_flags import training_flags


if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Recipe = TypeVar("Recipe", bound="DataclassInstance")
RunFolder = Annotated[Path, typer.Argument(help="Folder for the run; the model will be in its model/ folder.")]
ConfigFile = Annotated[Path | None, typer.Option(help="YAML file with options of the recipe and the training.")]
Overwrite = Annotated[bool, typer.Option(help="Delete another run that lies in the output folder.")]


def read_options(
    context: typer.Context,
    config: Path | None,
    flags: dict[str, Any],
    recipe_class: type[Recipe],
    arguments_class: type,
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe and the training arguments of a YAML file and of flags, which win over it.

    Args:
        context (`typer.Context`): Of the command; what is left of its arguments are training arguments.
        config (`Path`, *optional*): The YAML file.
        flags (`dict`): Fields of the recipe given as flags.
        recipe_class (`type`): The dataclass of the recipe.
        arguments_class (`type`): The dataclass of the training arguments.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an option does not exist or has no valid value.
    """
    named = recipe_class.__dataclass_fields__
    values = load_yaml(config, recipe_class, arguments_class)
    training = {name: value for name, value in values.items() if name not in named}
    training |= training_flags(context.args, arguments_class, f"train {context.info_name}")
    return recipe_class(**{name: value for name, value in values.items() if name in named} | flags), training


def print_report(
    report: dict[str, Any], model: Path, json: bool, lines: Callable[[dict[str, Any]], None], what: str = "Model"
) -> None:
    """The report of a run as one JSON document, or what `lines` prints of it and where the model is."""
    if json:
        print_json({"model": model, **report})
        return
    lines(report)
    print(f"{what}: {model}")


def print_losses(report: dict[str, Any]) -> None:
    """Held-out losses of each level before and after."""
    for level, after in report.get("after", {}).items():
        print(f"{level}: loss {report['before'][level]:.4f} -> {after:.4f} (held-out texts)")
