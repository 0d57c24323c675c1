"""With `--json` standard output is one document; every run of a command in these tests is held to its names."""

import json

from hf_matryoshka.cli.command import Command

from .command_tree import commands
from .json_documents import DOCUMENTS


def test_every_command_with_a_result_has_the_flag():
    with_flag = {
        words for words, command in commands().items() if "json" in {option.name for option in command.params}
    }
    assert with_flag == set(DOCUMENTS) == set(commands()) - {("completion",), ("hub", "serve")}
    assert all(isinstance(command, Command) for command in commands().values())


def test_what_libraries_print_goes_to_standard_error(command, monkeypatch, tmp_path):
    from hf_matryoshka.evaluation.curve import Curve, LevelPoint

    def noisy(path):
        print("a library says hello")
        return Curve([LevelPoint("d8", 8, 0.5), LevelPoint("d16", 16, 0.6)], "ndcg_at_10", "test", "ours")

    monkeypatch.setattr(Curve, "from_json", noisy)
    (tmp_path / "curve.json").touch()
    status, output, error = command("select", tmp_path / "curve.json", "--min-quality", 0.9, "--json")
    assert status == 0 and json.loads(output)["level"] == "d16" and error == "a library says hello\n"
    status, output, error = command("select", tmp_path / "curve.json", "--min-quality", 0.9)
    assert status == 0 and output.startswith("a library says hello\nd16: ") and error == ""
