"""Training arguments as flags, read by transformers' own parser."""

from typing import Any


def training_flags(arguments: list[str], arguments_class: type, command: str) -> dict[str, Any]:
    """Training arguments given as flags, and only those.

    Args:
        arguments (`list[str]`): What is left of the command line.
        arguments_class (`type`): The dataclass of the training arguments.
        command (`str`): Where the help is, for the error message.

    Raises:
        ValueError: If one does not exist or has no valid value.
    """
    import argparse

    from transformers import HfArgumentParser

    parser = HfArgumentParser(arguments_class, exit_on_error=False, add_help=False, allow_abbrev=False)
    for action in parser._actions:
        # Only what was given: a default must not override the YAML file.
        action.default, action.required = argparse.SUPPRESS, False
    try:
        found, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(f"bad training argument: {error}") from None
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r}; see hf-matryoshka {command} --help")
    return vars(found)
