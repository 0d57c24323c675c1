"""Shell blocks of a page, run line by line: commands in this process, `make` as far as it only calls one."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import typer
import yaml

from hf_matryoshka.cli.app import app
from hf_matryoshka.data.arrow import vectors_table, write_arrow

from .blocks import ROOT, Block
from .world import TEXTS, WIDTH


# Data of the configs that only the machine of their runs has.
DATA_KEYS = ("texts", "text_field", "exclude", "exclude_field")
# What takes long is asked for less: the last of two equal options counts.
SHORTER = {
    "quickstart": ["--max-documents", "200"],
    "bench gpt": ["--prompts", "1", "--prompt-tokens", "8", "--max-new-tokens", "9"],
    "optimize": ["--trials", "14"],
}
# A server is up already; suites and benchmarks are not started from a test; a quickstart with ARGS does more than one
# without.
SKIPPED = ("hf-matryoshka hub serve", "make test", "make bench-quick", "make quickstart")


def shell_lines(block: Block) -> list[str]:
    """The lines of a block, continued ones joined, without comments."""
    lines = re.sub(r"\\\n", " ", block.text).splitlines()
    return [line for line in (line.split(" #")[0].strip() for line in lines) if line and not line.startswith("#")]


def run_lines(lines: list[str]) -> None:
    """Runs lines one after the other, from the current folder; a `cd` holds until the last of them.

    Raises:
        AssertionError: If a line is neither `cd`, `make` nor `hf-matryoshka`, or if it fails.
    """
    home = Path.cwd()
    try:
        for line in lines:
            words = shlex.split(made(line) if line.startswith("make ") else line)
            if words[0] == "cd":
                os.chdir(words[1])
            elif line not in SKIPPED:
                assert words[0] == "hf-matryoshka", f"{line} is no command of this package"
                run(words[1:])
    finally:
        os.chdir(home)


def run(words: list[str]) -> None:
    command = typer.main.get_command(app)
    more = [option for name, options in SHORTER.items() if " ".join(words).startswith(name) for option in options]
    try:
        status = command.main([*words, *more], prog_name="hf-matryoshka", standalone_mode=False)
    except Exception as error:
        raise AssertionError(f"hf-matryoshka {' '.join(words)}: {type(error).__name__}: {error}") from error
    assert not status, f"hf-matryoshka {' '.join(words)} ended with status {status}"


def made(line: str) -> str:
    """The command that a `make` line ends with, or the line itself if that is none of this package."""
    # What a `make test` around this has set would be the options of this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--no-print-directory", "-n", *shlex.split(line)[1:]]
    planned = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert planned.returncode == 0, f"{line}: {planned.stderr}"
    last = shlex.split(planned.stdout.splitlines()[-1])
    if Path(last[0]).name == "hf-matryoshka":
        return shlex.join(["hf-matryoshka", *last[1:]])
    script = ROOT / last[1]
    assert last[1] == "-m" or script.is_file(), f"{line} runs {script}, which is not there"
    return line


def build_command_inputs() -> None:
    """Fills the current folder, that of `build_inputs`, with what the command lines of README.md read besides."""
    Path("configs").unlink()
    install_configs(Path("configs"))
    shutil.copytree(ROOT / "examples", "examples")
    Path("held_out.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    Path("outputs/examples").mkdir(parents=True)
    shutil.copyfile("texts.jsonl", "outputs/examples/docstrings.jsonl")
    vectors = np.random.default_rng(0).normal(size=(64, WIDTH)).astype(np.float32)
    write_arrow(vectors_table(vectors), "embeddings.arrow")
    run(["train", "funnel", "outputs/funnel/ours_s0", "--config", "configs/funnel_minilm.yaml"])


def install_configs(folder: Path) -> None:
    """Writes the configs of the checkout to a folder, with `texts.jsonl` for the data that they name."""
    folder.mkdir()
    for path in (ROOT / "configs").glob("*.yaml"):
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(options, dict) and "texts" in options:
            options = {name: value for name, value in options.items() if name not in DATA_KEYS}
            options["texts"] = ["texts.jsonl"]
            if options.get("kind") == "residual":
                options["matryoshka_dims"] = [16, 128]  # a repo a stage takes its time
        (folder / path.name).write_text(yaml.safe_dump(options), encoding="utf-8")
