"""Lists as the value of one flag."""

from collections.abc import Callable
from typing import Any

import typer


# Between values that were given after one flag.
SEPARATOR = "\n"


# A flag with such a parser must not be annotated as a list: typer would make it repeatable and collect lists of lists.
def integers(text: str) -> list[int]:
    """`"16,32,64"` as numbers."""
    return _parse_list(text, int, "integers such as 16,32,64")


def floats(text: str) -> list[float]:
    """`"0.5,0.75,1"` as numbers."""
    return _parse_list(text, float, "numbers such as 0.5,0.75,1")


def strings(text: str) -> list[str]:
    """`"a.txt,b.txt"` as names; a name with a comma can be given by several values after the flag only."""
    return str(text).split(SEPARATOR if SEPARATOR in str(text) else ",")


def budgets(text: str) -> list[list[float]]:
    """`"0.5:6:6,1:12:12"` as budgets of width, heads and layers."""

    def parse(part: str) -> list[float]:
        width, heads, depth = part.split(":")
        return [float(width), int(heads), int(depth)]

    return _parse_list(text, parse, "budgets such as 0.5:6:6,1.0:12:12 (width:heads:layers)")


def _parse_list(text: str, parse: Callable[[str], Any], kind: str) -> list:
    text = str(text).replace(SEPARATOR, ",")
    try:
        return [parse(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of {kind}") from None


def accepts(parser: Callable[[str], list], argument: str) -> bool:
    """Whether an argument is a value of a list."""
    try:
        parser(argument)
    except typer.BadParameter:
        return False
    return True
