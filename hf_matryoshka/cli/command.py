"""What all commands do alike: how their flags may be written, and where their output goes."""

import contextlib
import json
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TextIO

import typer
from typer.core import TyperCommand, TyperOption

from .lists import SEPARATOR


# Where the document goes; standard output where nothing is redirected.
_RESULTS: ContextVar[TextIO | None] = ContextVar("results", default=None)


class Command(TyperCommand):
    """A command whose flags may be written with underscores, as dataclass fields are, and whose lists may be several
    values after one flag (`--widths 0.5 0.75 1`), which click itself does not have.

    With `--json` its standard output is one document: what libraries print goes to standard error.
    """

    # Whether a further argument belongs to the list of a flag, by flag.
    lists: dict[str, Callable[[str], bool]] = {}

    # A context of typer is what both get; the class above it, which their types name, is private.
    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        options = [option for option in self.params if isinstance(option, TyperOption)]
        named = {name: option for option in options for name in (*option.opts, *option.secondary_opts)}
        joined: list[str] = []
        flag = None  # of the list that the next argument may go on with
        for argument in args:
            name, equals, value = argument.partition("=")
            dashed = name.replace("_", "-")
            if name.startswith("--") and dashed in named:
                flag = dashed if dashed in self.lists and not equals else None
                joined.append(dashed + equals + value)
            elif flag is not None and joined[-1] == flag:
                joined.append(argument)  # the first value, good or bad
            elif flag is not None and not name.startswith("--") and self.lists[flag](argument):
                if named[flag].multiple:
                    joined += [flag, argument]
                else:
                    joined[-1] += SEPARATOR + argument
            else:
                flag = None
                joined.append(argument)
        return super().parse_args(ctx, joined)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        if not ctx.params.get("json"):
            return super().invoke(ctx)
        token = _RESULTS.set(sys.stdout)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                return super().invoke(ctx)
        finally:
            _RESULTS.reset(token)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, default=str), file=_RESULTS.get())


def usage_error(error: typer.TyperException) -> str:
    """One sentence about an argument that does not exist, is missing or has no valid value; nothing where click has
    printed the help instead."""
    message = " ".join(error.format_message().split()).removesuffix(".")
    context = getattr(error, "ctx", None)
    if not message or context is None:
        return message and f"Error: {message}"
    return f"Error: {message}{' See' if message.endswith('?') else '; see'} {context.command_path} --help"
