"""The `hf-matryoshka` command: thin, a file a command group."""

import os
import sys


def main() -> None:
    """Entry point: bad input becomes one sentence and exit status 2; with HF_MATRYOSHKA_DEBUG=1 the traceback."""
    import typer

    from .app import app
    from .command import usage_error
    from .completion import PROGRAM, answer_shells

    answer_shells()
    try:
        status = app(prog_name=PROGRAM, standalone_mode=False)
    except typer.TyperException as error:
        _stop(usage_error(error), error.exit_code)
    except typer.Abort:
        _stop("Aborted.", 1)
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None or os.environ.get("HF_MATRYOSHKA_DEBUG"):
            raise
        _stop(f"Error: {sentence}", 2)
    if status == 130:
        _stop("Interrupted; the same command goes on where it stopped.", status)
    if status:
        raise SystemExit(status)


def _sentence(error: BaseException) -> str | None:
    """What an error that is no fault of the program says, in one line."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    if isinstance(error, StrictDataclassError):
        # A config wraps what its validators say into two lines that name the validator.
        error = error.__cause__ or error
    elif not isinstance(error, (ValueError, OSError, RuntimeError, ImportError, SafetensorError)):
        return None
    return " ".join(str(error).split()) or type(error).__name__


def _stop(line: str, status: int) -> None:
    if line:
        print(line, file=sys.stderr)
    raise SystemExit(status) from None
