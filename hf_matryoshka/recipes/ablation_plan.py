"""What an ablation runs, read from a YAML file and checked before any work."""

import itertools
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..data.yaml_mapping import read_mapping
from ..trainers.delta_arguments import DeltaTrainingArguments
from .delta_model import build_config
from .delta_recipe import DeltaRecipe
from .option_values import check_options
from .train_delta import delta_arguments


KEYS = ("base", "options", "variants", "grid", "seeds")
RECIPE = tuple(item.name for item in fields(DeltaRecipe))


@dataclass
class Variant:
    """One row of the table.

    Args:
        name (`str`): Its name.
        changes (`dict`): What it sets that the base does not, or otherwise.
        recipe ([`DeltaRecipe`]): The recipe of its runs, but for their seeds.
        training (`dict`): Their training arguments.
    """

    name: str
    changes: dict[str, Any]
    recipe: DeltaRecipe
    training: dict[str, Any]


@dataclass
class Ablation:
    """Variants of one training, each run with the same seeds; the first is what the others are compared with.

    Args:
        name (`str`): Name of the file.
        base (`dict`): The options that the variants share.
        variants (`list[Variant]`): At least one.
        seeds (`list[int]`): At least one.
    """

    name: str
    base: dict[str, Any]
    variants: list[Variant]
    seeds: list[int]


def read_ablation(path: str | Path) -> Ablation:
    """Reads an ablation.

    The file has `base`, the options of a training of a masked language model, or the name of a YAML file with them
    beside this one; optionally `options`, those that all variants have otherwise; either `variants`, a list of options
    each with a `name`, or `grid`, a list of values for each option, of which every combination is a variant; and
    optionally `seeds`, a list of numbers or how many.

    Args:
        path (`str` or `Path`): The YAML file.

    Returns:
        [`Ablation`].

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such description, names an unknown option, or a variant is no valid training.
    """
    path = Path(path)
    values = read_mapping(path)
    for key in values:
        if key not in KEYS:
            raise ValueError(f"{path} has the unknown key {key!r}; it may have {', '.join(KEYS)}")
    base = values.get("base")
    if isinstance(base, str):
        base = read_mapping(path.parent / base)
    if not isinstance(base, dict):
        raise ValueError(f"{path} needs base: the options of a training, or the name of a YAML file with them")
    base = _knobs(base, f"the base of {path}")
    options = values.get("options") or {}
    if not isinstance(options, dict):
        raise ValueError(f"the options of {path} must map names to values, but are {options!r}")
    base |= _knobs(options, str(path))
    if ("variants" in values) == ("grid" in values):
        raise ValueError(f"{path} needs variants or grid, and not both")
    named = _named(values["variants"], path) if "variants" in values else _product(values["grid"], path)
    names = [name for name, _ in named]
    if not names:
        raise ValueError(f"{path} has no variants; give at least one")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"{path} has two variants with the name {twice[0]!r}; give each its own")
    variants = [_variant(name, base, changes) for name, changes in named]
    return Ablation(path.stem, base, variants, _seeds(values.get("seeds", 1), path))


def _knobs(options: Any, where: str) -> dict[str, Any]:
    """Options of `train delta`, but for where it writes."""
    if "output_dir" in options:
        raise ValueError(f"{where} has the unknown option 'output_dir'; each run has a folder of its own")
    return check_options(options, where, DeltaRecipe, DeltaTrainingArguments)


def _named(entries: Any, path: Path) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for entry in entries if isinstance(entries, list) else filter(None, [entries]):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise ValueError(f"each of the variants of {path} must have a name and options, but one is {entry!r}")
        found.append((entry["name"], {option: value for option, value in entry.items() if option != "name"}))
    return found


def _product(grid: Any, path: Path) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(grid, dict) or not all(isinstance(values, list) and values for values in grid.values()):
        raise ValueError(f"the grid of {path} must have a list of values for each option, but is {grid!r}")
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return [(", ".join(f"{name}={value}" for name, value in each.items()), each) for each in combinations if each]


def _variant(name: str, base: dict[str, Any], changes: dict[str, Any]) -> Variant:
    where = f"variant {name!r}"
    changes = _knobs(changes, where)
    for option in ("seed", "objective"):
        if option in changes:
            raise ValueError(f"{where} sets {option}, which all variants share; leave it out")
    values = base | changes
    training = {option: value for option, value in values.items() if option not in RECIPE}
    try:
        recipe = DeltaRecipe(**{option: value for option, value in values.items() if option in RECIPE})
        if recipe.objective != "masked_lm":
            raise ValueError(f"objective {recipe.objective!r} has no ablation; use masked_lm")
        if not recipe.validation_path and not recipe.validation_fraction:
            raise ValueError("nothing is held out to compare on; set validation_fraction or validation_path")
        delta_arguments(Path("checkpoints"), recipe, training)
        build_config(recipe, None)
    except (ValueError, OSError) as error:
        raise ValueError(f"{where}: {error}") from error
    return Variant(name, changes, recipe, training)


def _seeds(given: Any, path: Path) -> list[int]:
    seeds = list(range(given)) if isinstance(given, int) else given
    whole = isinstance(seeds, list) and all(isinstance(seed, int) and seed >= 0 for seed in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"the seeds of {path} must be different whole numbers, or how many, but are {given!r}")
    return seeds
