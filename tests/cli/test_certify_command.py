"""`hf-matryoshka certify`, and an export of what it certified."""

import json
import random

import pytest

from hf_matryoshka import load_family, nest_sentence_encoder
from hf_matryoshka.evaluation.certificate import Certificate

from ..conftest import TINY_WORDS


@pytest.fixture
def run(tmp_path, tiny_sentence_transformer):
    """What `train delta` leaves of a sentence encoder, without the training; the texts lie beside it."""
    run = tmp_path / "run"
    model = nest_sentence_encoder(tiny_sentence_transformer, [[0.25, 2, 1], [0.5, 2, 2], [1.0, 2, 2]], [4, 32])
    model.save(str(run / "model"))
    recipe = {"objective": "embedding", "base_model_path": tiny_sentence_transformer, "validation_fraction": 0}
    (run / "training.json").write_text(json.dumps({"recipe": recipe}))
    for seed, name in enumerate(("a.jsonl", "b.jsonl")):
        rng = random.Random(seed)
        texts = {" ".join(rng.choices(TINY_WORDS, k=rng.randint(4, 12))) for _ in range(40)}
        (tmp_path / name).write_text("\n".join(json.dumps({"gloss": text}) for text in sorted(texts)))
    return run


def test_certify_and_export(command, run, tmp_path):
    files = ("--calibration", tmp_path / "a.jsonl", "--certificate", tmp_path / "b.jsonl", "--text-field", "gloss")
    status, output, error = command("certify", run, *files, "--gates", "0,0.5,1", "--tolerance", 0.001)
    assert status == 0, error
    found = Certificate.from_json(run / "certified" / "certificate.json")
    first, second, third = found.chain
    assert found.tolerance == 0.001 and {gate.alpha for gate in found.gates} <= {0, 0.5, 1}
    assert f"{second} -> {third}: gate 1, cosine_distance_to_teacher " in output
    assert "a gate of 0 is not exactly the smaller level: w0.5-h2-d2 runs 1 more layer" in output
    assert f"{third} - {first}: -1." in output and "] certified\n" in output
    assert "Violations on 40 other texts: 0 of 3 pairs before, 0 with the gates; certified: 3" in output
    assert f"Certified model: {run / 'certified'}" in output

    family = tmp_path / "family"
    status, _, error = command("export", run / "certified", family, "--budgets", "0.5:2:2")
    assert status == 0, error
    assert load_family(family).manifest.certificate == found
    for name in ("full", second):
        card = (family / name / "README.md").read_text()
        assert "## Certificate" in card and "`cosine_to_teacher` on `certificate`" in card
    # Without one, as before.
    status, _, error = command("export", run, tmp_path / "plain", "--budgets", "0.5:2:2")
    assert status == 0, error
    assert "ertificate" not in (tmp_path / "plain" / "full" / "README.md").read_text()
    assert "ertificate" not in (tmp_path / "plain" / "full" / "matryoshka.json").read_text()

    status, _, error = command("certify", run, *files)
    assert status == 2 and error.startswith("Error: ") and "holds a certificate already" in error
    arguments = ("--chain", f"{first},{third}", "--overwrite", "--json")
    status, output, error = command("certify", run, *files, *arguments)
    assert status == 0, error
    assert json.loads(output)["chain"] == [first, third] and json.loads(output)["certified"] == 1
    (run / "certified" / "certificate.json").write_text("{}")
    status, _, error = command("export", run / "certified", tmp_path / "bad")
    assert status == 2 and "is no certificate as written by Certificate.to_json" in error


def test_without_held_out_data(command, run, tmp_path):
    status, _, error = command("certify", run)
    assert status == 2 and error.count("\n") == 1
    assert "a certificate needs held-out data, but" in error and "held no texts out; give files" in error
    status, _, error = command("certify", run, "--calibration", tmp_path / "a.jsonl")
    assert status == 2 and "none was given for certificate" in error
    assert not (run / "certified").exists()
