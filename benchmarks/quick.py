"""`--quick`: a small run of a benchmark, which writes nothing where the committed rows are."""

import argparse
from pathlib import Path
from typing import Any


FOLDER = Path("outputs/bench")


def parse(parser: argparse.ArgumentParser, name: str, **smaller: Any) -> argparse.Namespace:
    """The arguments of a script that has `--quick`.

    Args:
        parser (`argparse.ArgumentParser`): With `--out`, and `--work` if the script keeps runs.
        name (`str`): Of the benchmark.
        smaller: What `--quick` sets, unless it is given as well.

    Returns:
        `argparse.Namespace`: With `--quick`, results and runs are below `outputs/bench`.
    """
    said = " ".join(f"--{option.replace('_', '-')} {_shown(value)}" for option, value in smaller.items())
    parser.add_argument("--quick", action="store_true", help=f"a small run below {FOLDER}: {said}")
    if parser.parse_args().quick:
        parser.set_defaults(**smaller, out=str(FOLDER / f"{name}.json"))
        if parser.get_default("work") is not None:
            parser.set_defaults(work=FOLDER / "runs" / name)
    return parser.parse_args()


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
