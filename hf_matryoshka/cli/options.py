"""Flags and YAML keys from the fields of dataclasses."""

import difflib
import inspect
import json
import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Annotated, Any

import typer


JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


def with_flags(command: Callable[..., None], options: type) -> Callable[..., None]:
    """`command` with a flag for each field of the dataclass `options`, handed over as `flags`.

    `flags` holds only what the user gave, so that a YAML file can lie between the flags and the defaults.
    """
    own = [
        parameter
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
        if parameter.name != "flags"
    ]
    named = {item.name: item for item in fields(options)}

    def run(**arguments: Any) -> None:
        given = {name: arguments.pop(name) for name in named if name not in own_names}
        command(**arguments, flags={name: value for name, value in given.items() if value is not None})

    own_names = {parameter.name for parameter in own}
    added = [_flag(item) for name, item in named.items() if name not in own_names]
    run.__signature__ = inspect.Signature([*own, *added])
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *added]}
    return run


def _flag(item: Field) -> inspect.Parameter:
    kind = _plain_type(item.type)
    default = "" if item.default in (None, MISSING) else f" (default: {item.default})"
    settings: dict[str, Any] = {"help": item.metadata.get("help", "") + default}
    if kind is list:
        settings |= {"parser": integers, "metavar": "INTEGERS"}
    flag = f"--{item.name.replace('_', '-')}"
    names = [f"{flag}/--no-{flag[2:]}"] if kind is bool else [flag]
    annotation = Annotated[(Any if kind is list else kind) | None, typer.Option(*names, **settings)]
    return inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _plain_type(annotation: Any) -> type:
    """`int` of `int | None`, `list` of `list[int] | None`."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        annotation = next(kind for kind in typing.get_args(annotation) if kind is not type(None))
    return typing.get_origin(annotation) or annotation


def integers(text: str) -> list[int]:
    """`"16,32,64"` as numbers. A flag with this parser must not be annotated as a list: typer would make it repeatable
    and collect lists of lists."""
    try:
        return [int(part) for part in str(text).split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of integers such as 16,32,64") from None


def load_yaml(path: Path | None, *option_types: type) -> dict[str, Any]:
    """The keys of a YAML file, each of which must be a field of one of the dataclasses.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no mapping or holds an unknown key; the message names the nearest known one.
    """
    if path is None:
        return {}
    import yaml

    if not path.is_file():
        raise FileNotFoundError(f"config {path} does not exist")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"config {path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"config {path} must map option names to values, but it is a {type(values).__name__}")
    known = {item.name for options in option_types for item in fields(options) if item.init}
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"config {path} has the unknown option {key!r}{hint}")
    return values


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, default=str))
