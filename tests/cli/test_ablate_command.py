"""`hf-matryoshka ablate` as a user runs it."""

import json

import pytest

from hf_matryoshka.recipes import ablate
from hf_matryoshka.recipes.ablate import AblationResult


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("base: {texts: [a.txt], max_steps: 2}\nseeds: 3\nvariants:\n  - name: plain\n")
    return path


def test_it_prints_the_table_or_the_rows(command, config, tmp_path, monkeypatch):
    calls = []

    def run(ablation, *arguments):
        calls.append((ablation.name, ablation.seeds, *arguments))
        return AblationResult([{"system": "plain", "value": 2.5}], "variant  NLL", tmp_path / "out.json")

    monkeypatch.setattr(ablate, "run_ablation", run)
    status, output, error = command("ablate", config, "--out", tmp_path / "out.json", "--runs", tmp_path / "runs")
    assert status == 0, error
    assert output == f"variant  NLL\nRows: {tmp_path / 'out.json'}\n"
    status, output, _ = command("ablate", config, "--seeds", "1,2", "--runs", tmp_path / "runs", "--json")
    assert status == 0 and json.loads(output)["rows"] == [{"system": "plain", "value": 2.5}]
    assert calls == [
        ("study", [0, 1, 2], tmp_path / "runs", tmp_path / "out.json", None),
        ("study", [0, 1, 2], tmp_path / "runs", None, [1, 2]),
    ]


def test_bad_input_is_one_sentence_before_any_work(command, config, tmp_path):
    def error(*arguments):
        status, _, message = command("ablate", *arguments, "--runs", tmp_path / "runs")
        assert status == 2 and not (tmp_path / "runs").exists()
        return " ".join(message.replace("│", " ").split())

    assert "Error: config" in error(tmp_path / "none.yaml")
    assert "is no list of integers" in error(config, "--seeds", "one")
    config.write_text(config.read_text() + "    enable_cfsc: true\n")
    assert "variant 'plain' has the unknown option 'enable_cfsc'; did you mean enable_cscf?" in error(config)
