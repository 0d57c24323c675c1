"""`hf-matryoshka bench mamba`."""

import json

import pytest

from hf_matryoshka import MatryoshkaMambaConfig
from hf_matryoshka.evaluation import mamba_speed


@pytest.fixture
def folder(tmp_path):
    sizes = {"vocab_size": 50, "hidden_size": 64, "num_hidden_layers": 1, "head_dim": 16, "state_size": 8}
    sizes |= {"chunk_size": 8, "segment_length": 32, "block_size": 16, "matryoshka_dims": [8], "widths": [0.5, 1.0]}
    MatryoshkaMambaConfig(**sizes).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_bench_mamba(command, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(mamba_speed, "peak_memory", lambda name, config, length: 1.5)
    options = ("--lengths", "16,24", "--memory", "16", "--rounds", 1, "--out", tmp_path / "new" / "speed.json")
    status, output, error = command("bench", "mamba", folder, *options)
    assert status == 0, error
    assert "bert_sdpa" in output and "1.5 MB" in output and str(tmp_path / "new" / "speed.json") in output
    report = json.loads((tmp_path / "new" / "speed.json").read_text())
    assert report["name"] == "mamba_speed" and report["threads"] >= 1
    assert report["layer_parameters"]["bert_sdpa"] == pytest.approx(report["layer_parameters"]["ours w1.0"], rel=0.02)
    assert {row["split"] for row in report["rows"]} == {"16", "24"}
    status, output, _ = command("bench", "mamba", folder, "--lengths", "16", "--memory", "16", "--rounds", 1, "--json")
    assert status == 0 and {row["metric"] for row in json.loads(output)} == {"seconds", "extra_mb"}


def test_another_model_is_refused(command, tiny_sentence_transformer):
    status, _, error = command("bench", "mamba", tiny_sentence_transformer)
    assert status == 2 and "bench mamba takes a matryoshka_mamba" in error
