"""The commands as a user runs them, on tiny data, in this process."""

import json

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from hf_matryoshka.data.vectors import load_vectors, save_vectors
from hf_matryoshka.recipes import quickstart as recipe


QUICK = [
    *("--unsupervised-steps", 4, "--supervised-steps", 4, "--evaluations", 2, "--validation-fraction", 0.2),
    *("--use_cpu", "True", "--per_device_train_batch_size", 8),
]


def test_train_evaluate_select_and_export(command, beir, tiny_sentence_transformer, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("matryoshka_dims: [4, 8, 32]\nlearning_rate: 0.002\nseed: 5\n")
    run = tmp_path / "run"
    arguments = ["--beir", beir, "--model", tiny_sentence_transformer, "--config", config, "--seed", 7, *QUICK]
    status, output, _ = command("train", "adaptor", run, *arguments)
    assert status == 0 and f"Adaptor: {run / 'model'}" in output and "ndcg_at_10_d8" in output
    report = json.loads((run / "training.json").read_text())
    assert report["recipe"]["seed"] == 7 and report["recipe"]["matryoshka_dims"] == [4, 8, 32]
    assert report["training"]["learning_rate"] == 0.002

    results = tmp_path / "results"
    status, output, _ = command("evaluate", run, "--beir", beir, "--output", results, "--num-vectors", 1000)
    assert status == 0 and "animals (unseen)" in output and "svd" in output and "AUTC" in output
    rows = json.loads((results / "results.json").read_text())["rows"]
    ours = [row for row in rows if row["system"] == "ours" and row["split"] == "test"]
    assert [row["level"] for row in ours] == ["d4", "d8", "d32"] and ours[0]["memory_mb"] == pytest.approx(0.016)
    assert (results / "animals.png").read_bytes().startswith(b"\x89PNG")

    status, output, _ = command("select", results / "animals.json", "--max-memory-mb", 0.02, "--json")
    assert status == 0 and json.loads(output)["level"] == "d4"

    family = tmp_path / "family"
    status, output, _ = command("export", run, family, "--curve", results / "animals.json", "--json")
    assert status == 0
    repos = json.loads(output)
    assert {name: repo["form"] for name, repo in repos.items()} == {
        "d4": "stock",
        "d8": "stock",
        "d32": "stock",
        "full": "remote_code",
    }
    assert max(repo["max_difference"] for repo in repos.values()) <= 1e-5
    assert SentenceTransformer(str(family / "d8"), device="cpu").encode(["a cat"]).shape == (1, 8)
    assert "ndcg_at_10" in (family / "d8" / "README.md").read_text()

    status, output, _ = command("evaluate", family / "d8", "--beir", beir, "--no-baselines", "--json")
    assert status == 0
    stock = [row["value"] for row in json.loads(output)["animals"]]
    assert stock == pytest.approx([row["value"] for row in ours if row["level"] == "d8"])


def test_embed_then_train_on_vectors_and_export_without_a_base(command, beir, tiny_sentence_transformer, tmp_path):
    file = tmp_path / "vectors.parquet"
    status, output, _ = command("embed", beir, file, "--model", tiny_sentence_transformer, "--json")
    assert status == 0 and json.loads(output) == {"output": str(file), "vectors": 32, "dim": 32}
    assert load_vectors(file).shape == (32, 32)
    status, output, progress = command("train", "adaptor", tmp_path / "run", "--vectors", file, *QUICK, "--json")
    assert status == 0 and json.loads(output)["stages"]["unsupervised"]["before"]["overlap_at_10"] > 0
    assert "Training (unsupervised)" in progress
    status, output, error = command("export", tmp_path / "run", tmp_path / "family")
    assert status == 2 and "give --base-model, or --vectors-only" in error
    status, output, _ = command("export", tmp_path / "run", tmp_path / "family", "--vectors-only", "--dims", "16")
    assert status == 0 and "remote code" in output


def works_once(function):
    """The function, whose later calls give what the first one gave."""
    results = []

    def run(*args, **options):
        if not results:
            results.append(function(*args, **options))
        return results[0]

    return run


def test_quickstart(command, hub, beir, tiny_sentence_transformer, tmp_path, monkeypatch):
    # Once is enough for both ways of printing it.
    monkeypatch.setattr(recipe, "quickstart", works_once(recipe.quickstart))
    output_dir = tmp_path / "quick"
    arguments = ["--model", tiny_sentence_transformer, "--beir", beir, "--output", output_dir, "--dims", "4,16,32"]
    status, output, progress = command("quickstart", *arguments, "--push", "me/demo")
    assert status == 0
    assert "ndcg_at_10, split test_unseen" in output and "Next:" in output and "Training the adaptor" in progress
    assert {"d4", "d16", "d32", "full", "results.json", "curve.json", "curve.png"} <= {
        path.name for path in output_dir.iterdir()
    }
    report = json.loads((output_dir / "results.json").read_text())
    assert set(report) >= {"name", "date", "command", "machine", "versions", "rows"}
    systems = {row["system"] for row in report["rows"]}
    assert systems == {"ours", "truncation", "random_dims", "variance_order", "svd", "int8", "binary"}
    assert {row["split"] for row in report["rows"]} == {"test", "test_unseen"}
    assert set(hub.repos("model")) == {"me/demo", "me/demo-d4", "me/demo-d16", "me/demo-d32"}
    assert "Collection: me/demo" in output and "family show me/demo" in output
    assert SentenceTransformer("me/demo-d16", device="cpu").encode(["a cat"]).shape == (1, 16)
    status, output, _ = command("quickstart", *arguments, "--json")
    assert status == 0 and set(json.loads(output)["levels"]) == {"d4", "d16", "d32"}
    status, output, _ = command("export", output_dir / "training", tmp_path / "again", "--dims", "4")
    assert status == 0 and "remote code" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "adaptor", "out"], "give --beir (a data set) or --vectors (a file of vectors)"),
        (["train", "adaptor", "out", "--beir", "x", "--vectors", "y"], "need all of --vectors, --query-vectors"),
        (["train", "adaptor", "out", "--beir", "missing"], "missing"),
        (["evaluate", "model"], "name what to evaluate on"),
        (["select", "missing.json", "--min-quality", "0.9"], "missing.json"),
        (["export", "missing", "out"], "missing holds no adaptor"),
        (["embed", "missing.txt", "out.parquet"], "missing.txt does not exist"),
        (["embed", "missing.txt", "out.csv"], "vectors files are"),
    ],
)
def test_bad_input_is_one_sentence(command, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, output, error = command(*arguments)
    assert status == 2 and output == ""
    assert error.startswith("Error: ") and message in error and len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_bad_vectors_are_named_before_any_work(command, tmp_path):
    vectors = np.ones((4, 8), dtype=np.float32)
    save_vectors(vectors, tmp_path / "good.npy")
    vectors[2, 1] = np.inf
    np.save(tmp_path / "bad.npy", vectors)
    status, _, error = command("train", "adaptor", tmp_path / "run", "--vectors", tmp_path / "bad.npy")
    assert status == 2 and "2" in error and not (tmp_path / "run").exists()
    status, _, error = command("train", "adaptor", tmp_path / "run", "--vectors", tmp_path / "good.npy", "--lr", "1")
    assert status == 2 and "unknown option '--lr'" in error and not (tmp_path / "run").exists()


def test_a_model_that_cannot_be_reached_names_the_offline_route(command, tmp_path, beir):
    status, _, error = command("train", "adaptor", tmp_path / "run", "--beir", beir, "--model", "nobody/nothing")
    assert status == 2 and "nobody/nothing" in error and "local folder" in error
