"""Options that come from a file: their names and types, before any work."""

import difflib
import enum
import types
import typing
from dataclasses import fields
from typing import Any


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", dict: "a mapping"}


def check_options(values: dict[str, Any], where: str, *option_types: type) -> dict[str, Any]:
    """The options, each of which must be a field of one of the dataclasses and have its type.

    Args:
        values (`dict`): Values by name.
        where (`str`): Where they stand, for the messages.
        option_types (`type`): The dataclasses.

    Returns:
        `dict`: The same; a number that YAML takes for text (`5e-4` has no point) is a number.

    Raises:
        ValueError: If one is unknown, and then what is the nearest known one, or has another type.
    """
    known = {
        item.name: hint
        for options in option_types
        for hints in [typing.get_type_hints(options)]
        for item, hint in ((item, hints[item.name]) for item in fields(options))
        if item.init
    }
    checked = {}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            raise ValueError(f"{where} has the unknown option {name!r}{f'; did you mean {near[0]}?' if near else ''}")
        try:
            checked[name] = _typed(value, known[name])
        except ValueError:
            wanted = _described(known[name])
            raise ValueError(f"{where}: {name} must be {wanted}, but is {value!r}") from None
    return checked


def _typed(value: Any, hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        # As it is where one of the types allows that.
        for kind in sorted(arguments, key=lambda kind: kind is float):
            try:
                return _typed(value, kind)
            except ValueError:
                continue
        raise ValueError
    if origin is list and isinstance(value, list) and arguments:
        return [_typed(item, arguments[0]) for item in value]
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError
        return float(value) if isinstance(value, str) else value
    if hint is int and isinstance(value, bool):
        raise ValueError
    if origin is typing.Literal:
        if value not in arguments:
            raise ValueError
        return value
    kind = origin or hint
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        kind = (str, kind)  # the names of its members, which the dataclass checks
    elif kind not in (int, bool, str, list, dict, types.NoneType):
        return value
    if not isinstance(value, kind):
        raise ValueError
    return value


def _described(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(dict.fromkeys(_described(kind) for kind in arguments if kind is not types.NoneType))
    if (origin or hint) is list:
        return f"a list, each item {_described(arguments[0])}" if arguments else "a list"
    if origin is typing.Literal:
        return " or ".join(map(repr, arguments))
    return _NAMES.get(origin or hint, "text")
