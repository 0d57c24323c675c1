"""`hf-matryoshka completion`."""

import os
from typing import Annotated

import typer


PROGRAM = "hf-matryoshka"
# Set by the shell when it asks the program what may come next.
VARIABLE = "_HF_MATRYOSHKA_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


def completion(shell: Annotated[str, typer.Argument(help="bash, zsh or fish.")]) -> None:
    """Print the script that lets a shell complete commands and their options with Tab.

    The script asks the program itself, so it stays right when that changes.

    Examples: source <(hf-matryoshka completion bash)

    hf-matryoshka completion zsh > ~/.zfunc/_hf-matryoshka

    hf-matryoshka completion fish > ~/.config/fish/completions/hf-matryoshka.fish
    """
    from typer.completion import get_completion_script

    if shell not in SHELLS:
        raise ValueError(f"there is no completion for {shell!r}; choose one of {', '.join(SHELLS)}")
    print(get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell))


def answer_shells() -> None:
    """Make typer answer a shell that asks, which it does on its own only with its two flags that install a script."""
    if VARIABLE in os.environ:
        from typer.completion import completion_init

        completion_init()
