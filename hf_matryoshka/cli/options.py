"""Flags and YAML keys from the fields of dataclasses."""

import inspect
import json
import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from ..data.yaml_mapping import read_mapping
from ..recipes.option_values import check_options


JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


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
    run.__signature__ = inspect.Signature([*own, *added])
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
    annotation = Annotated[(Any if kind is list else kind) | None, typer.Option(*names, **settings)]
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


# A flag with such a parser must not be annotated as a list: typer would make it repeatable and collect lists of lists.
def integers(text: str) -> list[int]:
    """`"16,32,64"` as numbers."""
    return _parse_list(text, int, "integers such as 16,32,64")


def floats(text: str) -> list[float]:
    """`"0.5,0.75,1"` as numbers."""
    return _parse_list(text, float, "numbers such as 0.5,0.75,1")


def strings(text: str) -> list[str]:
    """`"a.txt,b.txt"` as names; a name with a comma can be given by [`ListsCommand`] only."""
    return str(text).split(_SEPARATOR if _SEPARATOR in str(text) else ",")


def budgets(text: str) -> list[list[float]]:
    """`"0.5:6:6,1:12:12"` as budgets of width, heads and layers."""

    def parse(part: str) -> list[float]:
        width, heads, depth = part.split(":")
        return [float(width), int(heads), int(depth)]

    return _parse_list(text, parse, "budgets such as 0.5:6:6,1.0:12:12 (width:heads:layers)")


def _parse_list(text: str, parse: Callable[[str], Any], kind: str) -> list:
    text = str(text).replace(_SEPARATOR, ",")
    try:
        return [parse(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of {kind}") from None


# Between values that were given after one flag.
_SEPARATOR = "\n"
_LISTS = {
    int: (integers, "INTEGERS"),
    float: (floats, "NUMBERS"),
    str: (strings, "NAMES"),
    list: (budgets, "W:H:D..."),
}


class ListsCommand(TyperCommand):
    """A command whose flags may be written with underscores, as dataclass fields are, and whose lists may be several
    values after one flag (`--widths 0.5 0.75 1`), which click itself does not have."""

    # Parsers of the lists by flag, see [`lists_command`].
    lists: dict[str, Callable[[str], list]] = {}

    def parse_args(self, ctx, args: list[str]) -> list[str]:
        options = [option for option in self.params if isinstance(option, TyperOption)]
        names = {name for option in options for name in (*option.opts, *option.secondary_opts)}
        joined: list[str] = []
        parser = None  # of the list that the next argument may go on with
        for argument in args:
            name, equals, value = argument.partition("=")
            dashed = name.replace("_", "-")
            if name.startswith("--") and dashed in names:
                parser = None if equals else self.lists.get(dashed)
                joined.append(dashed + equals + value)
            elif parser is not None and joined[-1] in self.lists:
                joined.append(argument)  # the first value, good or bad
            elif parser is not None and not name.startswith("--") and _accepts(parser, argument):
                joined[-1] += _SEPARATOR + argument
            else:
                parser = None
                joined.append(argument)
        return super().parse_args(ctx, joined)


def lists_command(*options: type) -> type[ListsCommand]:
    """The class of a command with the flags of the dataclasses `options` (see [`with_flags`])."""
    found = {
        f"--{item.name.replace('_', '-')}": _LISTS[_element_type(item.type)][0]
        for option_type in options
        for item in fields(option_type)
        if _plain_type(item.type) is list
    }
    return type("ListsCommand", (ListsCommand,), {"lists": found})


def _accepts(parser: Callable[[str], list], argument: str) -> bool:
    try:
        parser(argument)
    except typer.BadParameter:
        return False
    return True


def load_yaml(path: Path | None, *option_types: type) -> dict[str, Any]:
    """The keys of a YAML file, each of which must be a field of one of the dataclasses and have its type.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no mapping, or holds an unknown key or a value of another type.
    """
    return {} if path is None else check_options(read_mapping(path), f"config {path}", *option_types)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, default=str))
