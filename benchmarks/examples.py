"""Do the runs of examples/ end, and how long do they take? Every command of its README and of its YAML files.

    python benchmarks/examples.py --out benchmarks/results/examples.json

They run in their order, as a reader would run them, from a folder that holds a copy of examples/, one process each,
with what the ones before have left. `seconds` are of the whole command on the cores that the machine has, imports and
the encoding of texts by all-MiniLM-L6-v2 included. A command that fails ends the script.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.table import format_rows


EXAMPLES = Path(__file__).parent.parent / "examples"
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINKED = re.compile(r"^\| \[(\S+\.yaml)\]", re.MULTILINE)
NAMED = re.compile(r"^# +(hf-matryoshka .*)$", re.MULTILINE)


def commands(folder: Path) -> list[str]:
    """The lines of the README's first block, the command that each YAML file of its table names, the other blocks."""
    page = (folder / "README.md").read_text(encoding="utf-8")
    first, *others = BLOCK.findall(page)
    named = [NAMED.findall((folder / name).read_text(encoding="utf-8"))[0] for name in LINKED.findall(page)]
    lines = [first, *named, *others]
    whole = "\n".join(lines).replace("\\\n", " ").splitlines()
    stripped = (line.split(" #")[0].strip() for line in whole)
    return [line for line in stripped if line and not line.startswith("#")]


def name(line: str) -> str:
    """What a command is called in the rows: what it does, and to what."""
    words = [Path(word).name for word in shlex.split(line)[1:] if not word.startswith("-")]
    return " ".join(words[: 3 if words[0] in ("train", "family") else 2])


def run(lines: list[str], folder: Path) -> dict[str, float]:
    """Seconds of each command.

    Raises:
        RuntimeError: If one fails.
    """
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    spent, where = {}, folder
    for line in lines:
        words = shlex.split(line)
        if words[0] == "cd":
            where = (where / words[1]).resolve()
            continue
        began = time.perf_counter()
        ended = subprocess.run(words, cwd=where, env=os.environ | {"PATH": paths}, capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(f"{line} ended with status {ended.returncode}: {ended.stderr[-3000:]}")
        spent[name(line)] = time.perf_counter() - began
        print(f"{spent[name(line)]:7.1f} s  {line}", flush=True)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="benchmarks/results/examples.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(EXAMPLES, Path(folder) / "examples")
        spent = run(commands(EXAMPLES), Path(folder))
    row = {"metric": "seconds", "level": "cli", "split": "all", "low": None, "high": None, "seeds": 1}
    rows = [row | {"system": system, "value": round(seconds, 1)} for system, seconds in spent.items()]
    print(format_rows(["command", "seconds"], [[row["system"], f"{row['value']:g}"] for row in rows]))
    print(write_report(arguments.out, "examples", rows))


if __name__ == "__main__":
    main()
