"""`export`, `family show` and `evaluate` of a run of `train funnel`."""

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from hf_matryoshka import MatryoshkaFunnelModel, load_encoder
from hf_matryoshka.data.vectors import save_vectors

from .conftest import ANIMALS, PLACES, THINGS


TEXTS = [f"the {thing} treats a {animal} in the {place}" for thing in THINGS for animal in ANIMALS for place in PLACES]
SHAPE = ["--matryoshka_dims", 3, 6, "--encoder-sizes", 8, "--decoder-sizes", "8,8", "--predictor-sizes", 8]


@pytest.fixture
def run(command, tmp_path, tiny_sentence_transformer):
    """A run whose embeddings follow another convention than their model does by itself."""
    embeddings = load_encoder(tiny_sentence_transformer, "raw_mean").encode(TEXTS * 3)
    save_vectors(embeddings, tmp_path / "x.npy")
    options = ["--vectors", tmp_path / "x.npy", "--base-model-path", tiny_sentence_transformer]
    options += ["--embedding-convention", "raw_mean", "--max_steps", 2, "--use_cpu", "--disable_tqdm", "True"]
    status, _, error = command(
        "train", "funnel", tmp_path / "run", *options, *SHAPE, "--per_device_train_batch_size", 8
    )
    assert status == 0, error
    return tmp_path / "run"


def test_a_run_becomes_a_family(command, run, tmp_path, tiny_sentence_transformer):
    out = tmp_path / "family"
    status, output, error = command("export", run, out, "--dims", "3", "--license", "mit", "--json")
    assert status == 0, error
    assert {name: repo["form"] for name, repo in json.loads(output).items()} == dict.fromkeys(
        ["d3", "full"], "remote_code"
    )
    model = MatryoshkaFunnelModel.from_pretrained(run / "model")
    with torch.no_grad():
        raw = load_encoder(tiny_sentence_transformer, "raw_mean").encode(TEXTS[:4])
        expected = model(torch.from_numpy(raw), level="d3")
    small = SentenceTransformer(str(out / "d3"), device="cpu", trust_remote_code=True)
    np.testing.assert_allclose(small.encode(TEXTS[:4]), expected.latents, atol=1e-5)
    decoded = small.encode(TEXTS[:4], output="reconstruction")
    np.testing.assert_allclose(decoded, expected.reconstructions, atol=1e-5)
    # What the run measured, beside PCA.
    card = (out / "full" / "README.md").read_text()
    assert "| level | ours | pca | pca_uncentred | pca_int8 |" in card and (out / "full" / "curve.png").is_file()
    assert "of the convention `raw_mean`" in card
    # Where the base model lies on this machine is nobody's business.
    for name in ("README.md", "config.json", "matryoshka.json"):
        assert tiny_sentence_transformer not in (out / "full" / name).read_text()

    status, output, error = command("family", "show", out, "--verify")
    assert status == 0, error
    header, _, first, second, *_ = output.splitlines()
    assert "reconstruction_cosine (test)" in header and "bytes per vector" in header
    measured = json.loads((run / "curve.json").read_text())["points"]
    for line, point in zip((first, second), measured, strict=True):
        assert line.split()[0] == point["level"] and f"{point['quality']:.3f}" in line

    # The run and its repo give the same scores, each embedding texts by the convention of the funnel.
    (tmp_path / "sts").mkdir()
    rows = ["a cat,a dog,3.0", "the city,the large city,4.5", "gene,cell,2.0", "a river,protein,0.5"]
    (tmp_path / "sts" / "test.csv").write_text("\n".join(["sentence1,sentence2,score", *rows]) + "\n")
    found = []
    for source in (run, out / "full"):
        arguments = ["--trust-remote-code", "--sts", tmp_path / "sts", "--no-baselines", "--json"]
        status, output, error = command("evaluate", source, *arguments)
        assert status == 0, error
        (curve,) = json.loads(output).values()
        found.append([(row["level"], row["value"]) for row in curve])
    assert [level for level, _ in found[0]] == ["d3", "d6"] and found[0] == found[1]
    with torch.no_grad():
        vectors = model.encode(
            torch.from_numpy(
                load_encoder(tiny_sentence_transformer, "raw_mean").encode(
                    [text for row in rows for text in row.split(",")[:2]]
                )
            ),
            "d3",
        ).numpy()
    cosines = [np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in vectors.reshape(-1, 2, 3)]
    ranks = np.argsort(np.argsort(cosines)), np.argsort(np.argsort([3.0, 4.5, 2.0, 0.5]))
    assert found[0][0][1] == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-6)


def test_alone_and_bad_input(command, run, tmp_path):
    status, _, error = command("export", run, tmp_path / "alone", "--vectors-only", "--shard-by-level")
    assert status == 0, error
    assert not (tmp_path / "alone" / "full" / "modules.json").exists()
    assert MatryoshkaFunnelModel.from_pretrained(tmp_path / "alone" / "full", level="d3").config.latent_dim == 3
    for arguments, message in [
        (("--dims", "4"), "level 'd4' does not exist; choose one of d3, d6"),
        (("--budgets", "d3"), "name the widths of an adaptor or a funnel with --dims"),
        (("--format", "stock"), "neither transformers nor sentence-transformers has a class"),
        (("--onnx",), "leave onnx out"),
    ]:
        status, output, error = command("export", run, tmp_path / "out", *arguments)
        # Before it there are the bars of loading the base model.
        last = error.splitlines()[-1]
        assert status == 2 and output == "" and last.startswith("Error: ") and message in last, (arguments, error)
        assert not (tmp_path / "out").exists()
