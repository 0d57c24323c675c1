"""Commands whose files are missing, empty or of another kind, with anything among their options: exit status 2 and one
line, no traceback, and nothing is written before that."""

import contextlib
import io
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_matryoshka.cli import main
from tests.cli.command_tree import commands


# These would serve, train on what is installed, or look at this machine.
LEFT_OUT = ("quickstart", "doctor", "completion", "bench", "hub")
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


def drawn(data, command):
    """Arguments of a command: what it must have, and some of what it may have."""
    arguments = []
    for option in command.params:
        flags = [flag for flag in (*option.opts, *option.secondary_opts) if flag.startswith("--")]
        wanted = option.required or data.draw(st.integers(0, max(3, len(command.params) // 3)), label=option.name) == 0
        if not wanted or "--help" in flags:
            continue
        value = [data.draw(VALUES, label=option.name)]
        if flags and getattr(option, "is_flag", False):
            value = []
        arguments += [data.draw(st.sampled_from(flags)), *value] if flags else value
    return arguments


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@settings(max_examples=15)
@given(data=st.data())
def test_one_line_and_status_2(words, here, data):
    arguments = drawn(data, COMMANDS[words])
    output, errors, status = io.StringIO(), io.StringIO(), 0
    with contextlib.chdir(here), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["hf-matryoshka", *words, *arguments])
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                main()
            except SystemExit as stop:
                status = stop.code or 0
    said = errors.getvalue()
    assert status == 2 and "Traceback" not in said, said
    assert said.splitlines()[-1].startswith("Error: ") and not output.getvalue(), (said, output.getvalue())
    left = {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
    assert left == set(FILES)
