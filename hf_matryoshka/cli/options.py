"""Flags and YAML keys from the fields of dataclasses."""

import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..data.yaml_mapping import read_mapping
from ..recipes.option_values import check_options
from .command import Command
from .lists import accepts, budgets, floats, integers, strings


JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
# The parser and the name of a list, by the type of its items.
_LISTS: dict[type, tuple[Callable[[str], list], str]] = {
    int: (integers, "INTEGERS"),
    float: (floats, "NUMBERS"),
    str: (strings, "NAMES"),
    list: (budgets, "W:H:D..."),
}


def with_flags(command: Callable[..., None], *options: type) -> Callable[..., None]:
    """`command` with a flag for each field of the dataclasses `options`, handed over as `flags`.

    `flags` holds only what the user gave, so that a YAML file can lie between the flags and the defaults. A field that
    several dataclasses have is one flag, whose help is that of the first and, where it differs, of the others.
    """
    own = [
        parameter
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
        if parameter.name != "flags"
    ]
    named: dict[str, list[Field]] = {}
    for item in (item for option_type in options for item in fields(option_type)):
        named.setdefault(item.name, []).append(item)

    def run(**arguments: Any) -> None:
        given = {name: arguments.pop(name) for name in named if name not in own_names}
        command(**arguments, flags={name: value for name, value in given.items() if value is not None})

    own_names = {parameter.name for parameter in own}
    added = [_flag(items) for name, items in named.items() if name not in own_names]
    run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]  # what typer reads
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *added]}
    return run


def _flag(items: list[Field]) -> inspect.Parameter:
    first = items[0]
    kind = _plain_type(first.type)
    settings: dict[str, Any] = {"help": " | ".join(dict.fromkeys(map(_help, items)))}
    if kind is list:
        parser, metavar = _LISTS[_element_type(first.type)]
        settings |= {"parser": parser, "metavar": metavar}
    flag = f"--{first.name.replace('_', '-')}"
    names = [f"{flag}/--no-{flag[2:]}"] if kind is bool else [flag]
    given: Any = Any if kind is list else kind
    annotation = Annotated[given | None, typer.Option(*names, **settings)]
    return inspect.Parameter(first.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _help(item: Field) -> str:
    default = "" if item.default in (None, MISSING) else f" (default: {item.default})"
    return item.metadata.get("help", "") + default


def _without_none(annotation: Any) -> Any:
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return next(kind for kind in typing.get_args(annotation) if kind is not type(None))
    return annotation


def _plain_type(annotation: Any) -> type:
    """`int` of `int | None`, `list` of `list[int] | None`."""
    annotation = _without_none(annotation)
    return typing.get_origin(annotation) or annotation


def _element_type(annotation: Any) -> type:
    """`int` of `list[int] | None`, `list` of `list[list[float]]`."""
    (element,) = typing.get_args(_without_none(annotation))
    return _plain_type(element)


def lists_command(*options: type) -> type[Command]:
    """The class of a command with the flags of the dataclasses `options` (see [`with_flags`])."""
    found = {
        f"--{item.name.replace('_', '-')}": partial(accepts, _LISTS[_element_type(item.type)][0])
        for option_type in options
        for item in fields(option_type)
        if _plain_type(item.type) is list
    }
    return type("ListsCommand", (Command,), {"lists": found})


def load_yaml(path: Path | None, *option_types: type) -> dict[str, Any]:
    """The keys of a YAML file, each of which must be a field of one of the dataclasses and have its type.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no mapping, or holds an unknown key or a value of another type.
    """
    return {} if path is None else check_options(read_mapping(path), f"config {path}", *option_types)
