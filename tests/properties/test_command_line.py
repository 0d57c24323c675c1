"""Commands whose files are missing, empty or of another kind, with anything among their options: exit status 2 and one
line that says what is wrong with which argument or file, no traceback, and nothing is written before that."""

import contextlib
import io
import re
import sys
import traceback
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_matryoshka import cli
from hf_matryoshka.hub import LocalHub
from tests.cli.command_tree import commands

from .test_configs import ACCIDENT


# These would train on what is installed, or look at this machine.
LEFT_OUT = ("quickstart", "doctor", "completion")
# What is always given: without it, the sizes of a good model would be measured.
GIVEN = {("bench", "mamba"): ("model",)}
COMMANDS = {words: command for words, command in commands().items() if words[0] not in LEFT_OUT}
FILES = {
    "empty.txt": b"",
    "bytes.jsonl": bytes(range(256)),
    "list.json": b"[1, 2]",
    "half.yaml": b"a: [1",
    "other.yaml": b"unknown_option: 1\n",
    "model.safetensors": b"\x10\0\0\0\0\0\0\0{}",
    "folder/config.json": b'{"model_type": "nothing"}',
    "folder/manifest.json": b"{",
}
WORDS = [
    "",
    "x",
    "-1",
    "0",
    "1.5",
    "nan",
    "inf",
    "1e999",
    "d0",
    "a:b",
    "a,b",
    "1,2",
    "0.5:1",
    "é",
    "99999999999999999999",
]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("here")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "nothing").mkdir()
    return folder


PATHS = st.sampled_from([*FILES, "folder", "nothing", "missing", "missing/deep.txt", "new"])
VALUES = PATHS | PATHS | st.sampled_from(WORDS)


# What torch may say that is no fault of this program.
RESOURCES = re.compile(r"out of memory|not enough memory|can't allocate")


def drawn(data, words):
    """Arguments of a command: what it must have, and some of what it may have."""
    command = COMMANDS[words]
    arguments = []
    for option in command.params:
        flags = [flag for flag in (*option.opts, *option.secondary_opts) if flag.startswith("--")]
        wanted = option.required or option.name in GIVEN.get(words, ())
        wanted = wanted or data.draw(st.integers(0, max(3, len(command.params) // 3)), label=option.name) == 0
        if not wanted or "--help" in flags:
            continue
        value = [data.draw(VALUES, label=option.name)]
        if flags and getattr(option, "is_flag", False):
            value = []
        arguments += [data.draw(st.sampled_from(flags)), *value] if flags else value
    return arguments


def nobody_looked(error):
    """Whether an error is one that torch has met: raised in its own code, or in what that calls, by no `raise`."""
    if not isinstance(error, RuntimeError) or RESOURCES.search(str(error)):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    return "torch" in Path(last.filename).parts or not last.line.startswith("raise")


def says_which(line, words, arguments):
    """Whether a sentence names an argument or a flag of the command, or a file or another value that it was given; a
    short value may be part of any word, so that it counts where it is quoted or what the sentence is about."""
    arguments = [argument or "." for argument in arguments]  # as paths print
    names = {argument for argument in arguments if len(argument) > 3}
    for option in COMMANDS[words].params:
        names |= {option.name, *(flag.lstrip("-") for flag in option.opts)}
    names, values = ("|".join(map(re.escape, found)) for found in (names, arguments))
    quoted = rf"'(?:{values})'|^Error: (?:{values}) |^Error: No such option: (?:{values});"
    return re.search(rf"(?<!\w)(?:{names})(?!\w)|{quoted}", line) is not None


def serve_nothing(hub):
    """In the place of `LocalHub.start`, which is only reached where no argument was refused."""
    raise OSError("port: nothing is served in a test")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@settings(max_examples=15)
@given(data=st.data())
def test_one_line_and_status_2(words, here, data):
    arguments = drawn(data, words)
    output, errors, status = io.StringIO(), io.StringIO(), 0
    met, sentence = [], cli._sentence

    def heard(error):
        met.append(error)
        return sentence(error)

    with contextlib.chdir(here), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["hf-matryoshka", *words, *arguments])
        patch.setattr(cli, "_sentence", heard)
        patch.setattr(LocalHub, "start", serve_nothing)
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                cli.main()
            except SystemExit as stop:
                status = stop.code or 0
    said = errors.getvalue()
    assert status == 2 and "Traceback" not in said, said
    line = said.splitlines()[-1]
    assert line.startswith("Error: ") and not output.getvalue(), (said, output.getvalue())
    assert not any(map(nobody_looked, met)), line
    assert not ACCIDENT.search(line), line
    assert says_which(line, words, arguments), (line, arguments)
    left = {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
    assert left == set(FILES)


def test_what_torch_has_met_is_told_from_what_somebody_has_said():
    def said():
        raise RuntimeError("another process is packing to rows; wait for it")

    for fails, expected in (
        (lambda: torch.zeros(2, 3) @ torch.zeros(2, 3), True),
        (lambda: torch.nn.Linear(2, 3)(torch.zeros(4)), True),
        (said, False),
    ):
        with pytest.raises(RuntimeError) as caught:
            fails()
        assert nobody_looked(caught.value) is expected
    assert not says_which("Error: mat1 and mat2 shapes cannot be multiplied (0x4 and 8x3)", ("pack",), ["0", "x"])
    assert says_which("Error: 0 holds no decoder", ("pack",), ["0", "x"])
