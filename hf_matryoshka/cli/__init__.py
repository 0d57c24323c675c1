"""The `hf-matryoshka` command: thin, a file a command group."""

import os
import sys


def main() -> None:
    """Entry point: bad input becomes one sentence and exit status 2; with HF_MATRYOSHKA_DEBUG=1 the traceback."""
    from huggingface_hub.errors import StrictDataclassError

    from .app import app

    try:
        app()
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on where it stopped.", file=sys.stderr)
        raise SystemExit(130) from None
    except (ValueError, OSError, RuntimeError, ImportError, StrictDataclassError) as error:
        if os.environ.get("HF_MATRYOSHKA_DEBUG"):
            raise
        if isinstance(error, StrictDataclassError) and error.__cause__ is not None:
            # A config wraps what its validators say into two lines that name the validator.
            error = error.__cause__
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
