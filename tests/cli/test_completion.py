"""Tab completion, asked for by a real shell."""

import os
import shutil
import subprocess
import sys

import pytest

from .command_tree import commands


# Every word that stands before the place of the cursor; the last one is completed.
ASK = """
set -e
source "$1"
function=$(complete -p hf-matryoshka | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
while read -r line; do
    COMP_WORDS=(hf-matryoshka $line "")
    [[ $line == *-- ]] && COMP_WORDS=(hf-matryoshka $line)
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    COMPREPLY=()
    $function hf-matryoshka
    echo "$line>${COMPREPLY[*]//$'\\n'/ }"
done
"""


@pytest.fixture
def script(command, tmp_path):
    def write(shell):
        status, output, error = command("completion", shell)
        assert (status, error) == (0, "")
        (tmp_path / f"script.{shell}").write_text(output)
        return tmp_path / f"script.{shell}"

    return write


def test_bash_completes_every_command_and_its_options(script, tmp_path):
    path = script("bash")
    assert subprocess.run(["bash", "-n", path], capture_output=True).returncode == 0
    program = tmp_path / "bin" / "hf-matryoshka"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m hf_matryoshka.cli "$@"\n')
    program.chmod(0o755)
    groups = sorted({words[0] for words in commands() if len(words) == 2})
    run = subprocess.run(
        ["bash", "-c", ASK, "bash", path],
        input="\n".join(["", *groups, "train gpt --", "select --"]) + "\n",
        env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    found = dict(line.split(">") for line in run.stdout.splitlines())
    assert set(found[""].split()) == {words[0] for words in commands()}
    for group in groups:
        assert set(found[group].split()) == {words[1] for words in commands() if words[0] == group}
    assert {"--config", "--overwrite", "--json", "--doll-sizes"} <= set(found["train gpt --"].split())
    assert set(found["select --"].split()) == {
        *("--min-quality", "--max-latency-ms", "--max-memory-mb", "--num-vectors", "--json", "--help")
    }


def test_the_other_shells(script):
    assert script("zsh").read_text().startswith("#compdef hf-matryoshka")
    assert "--command hf-matryoshka" in script("fish").read_text()
    for shell in ("zsh", "fish"):
        if shutil.which(shell):
            run = subprocess.run([shell, "--no-execute", script(shell)], capture_output=True, text=True)
            assert run.returncode == 0, run.stderr
