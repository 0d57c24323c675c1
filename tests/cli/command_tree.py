"""The commands that there are."""

from typer.main import get_command

from hf_matryoshka.cli.app import app


def commands():
    """Every command by its words, for example `("train", "gpt")`."""
    found, groups = {}, [((), get_command(app))]
    for words, group in groups:
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                groups.append(((*words, name), command))
            else:
                found[*words, name] = command
    return found
