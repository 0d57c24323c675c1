"""What a repo says about itself and its family."""

import json

import numpy as np
import pytest

from hf_matryoshka.evaluation.certificate import certify_chain, describe_split
from hf_matryoshka.hub.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    FamilyLevel,
    FamilyRepo,
    Manifest,
    check_weights,
    file_hash,
    weight_hashes,
)


SCORES = [{"metric": "ndcg_at_10", "split": "test", "value": 0.5, "low": 0.4, "high": 0.6}]


def manifest(**changes):
    fields = {
        "model_type": "matryoshka_adaptor",
        "this": "d8",
        "inputs": "text",
        "levels": [
            FamilyLevel("d8", 8, {"bytes_per_vector": 32}, SCORES),
            FamilyLevel("d16", 16, {"bytes_per_vector": 64}),
        ],
        "repos": [
            FamilyRepo("d8", "../d8", ["d8"], "stock", None, 1e-8, {"model.safetensors": "ab"}),
            FamilyRepo("full", "../full", ["d8", "d16"], "remote_code", "it holds all levels", 0.0, {}),
        ],
    }
    return Manifest(**{**fields, **changes})


def test_it_reads_what_it_wrote(tmp_path):
    manifest().write(tmp_path)
    assert Manifest.from_folder(tmp_path) == manifest()
    assert (tmp_path / MANIFEST_FILE).read_text() == manifest().to_text()
    assert json.loads(manifest().to_text())["format_version"] == FORMAT_VERSION


def certificate():
    losses = {"d8": np.linspace(1, 2, 30), "d16": np.linspace(0.5, 2, 30)}
    splits = {"calibration": describe_split(9, ["a"]), "certificate": describe_split(30, ["b"])}
    return certify_chain(losses, None, metric="nll", unit="rows", gates=[], resamples=50, **splits)


def test_a_certificate_is_carried_and_its_absence_leaves_no_trace(tmp_path):
    assert '"certificate"' not in manifest().to_text() and manifest().certificate is None
    found = manifest(certificate=certificate())
    found.write(tmp_path)
    assert Manifest.from_folder(tmp_path) == found
    data = json.loads(found.to_text())
    assert data["certificate"]["certified"] == 1 and data["certificate"]["violations"] == 0
    del data["certificate"]
    assert Manifest.from_text(json.dumps(data), "x") == manifest()
    for damaged in ("yes", {}, {"gates": []}, {**found.certificate.to_dict(), "pairs": [{"smaller": "d8"}]}):
        with pytest.raises(ValueError, match="x is no manifest of a Matryoshka family; export the family again"):
            Manifest.from_text(json.dumps({**data, "certificate": damaged}), "x")


def test_entries_by_name():
    found = manifest()
    assert (found.repo.name, found.repo.stock, found.repo_of("full").stock) == ("d8", True, False)
    assert found.level("d16").dim == 16
    with pytest.raises(ValueError, match="level 'd9' does not exist; choose one of d8, d16"):
        found.level("d9")
    with pytest.raises(ValueError, match="repo 'd16' does not exist; choose one of d8, full"):
        found.repo_of("d16")


def test_curves_hold_what_was_measured():
    (curve,) = manifest().curves()
    assert (curve.metric, curve.split, curve.levels) == ("ndcg_at_10", "test", ["d8"])
    assert (curve["d8"].quality, curve["d8"].low, curve["d8"].cost) == (0.5, 0.4, {"bytes_per_vector": 32})


def test_a_newer_version_is_named():
    text = manifest().to_text().replace('"format_version": 1', '"format_version": 7')
    with pytest.raises(ValueError, match="x has the format version 7, but this hf_matryoshka reads versions up to 1"):
        Manifest.from_text(text, "x")


def test_keys_of_a_later_release_are_ignored():
    data = json.loads(manifest().to_text())
    data["novelty"] = data["levels"][0]["novelty"] = data["repos"][0]["novelty"] = 1
    assert Manifest.from_text(json.dumps(data), "x") == manifest()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "3", "{}", '{"format_version": 1}', manifest(this="d99").to_text(), '{"format_version": "one"}'],
)
def test_other_files_are_refused(text):
    with pytest.raises(ValueError, match="x (is no manifest of a Matryoshka family|has the format version one)"):
        Manifest.from_text(text, "x")


@pytest.mark.parametrize(
    "part, index, changes",
    [
        ("repos", 0, {"location": None}),
        ("repos", 1, {"files": ["model.safetensors"]}),
        ("levels", 0, {"cost": None}),
        ("levels", 0, {"quality": "high"}),
        ("levels", 0, {"quality": [{"metric": "ndcg_at_10"}]}),
        ("levels", 1, {"name": 16}),
    ],
)
def test_a_damaged_file_is_refused_at_once(part, index, changes):
    data = json.loads(manifest().to_text())
    data[part][index] |= changes
    with pytest.raises(ValueError, match="x is no manifest of a Matryoshka family; export the family again"):
        Manifest.from_text(json.dumps(data), "x")


def test_a_binary_file_is_refused(tmp_path):
    (tmp_path / MANIFEST_FILE).write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match="matryoshka.json is no manifest of a Matryoshka family"):
        Manifest.from_folder(tmp_path)


def test_only_files_are_weights(tmp_path):
    (tmp_path / "old.safetensors").mkdir()
    (tmp_path / "gone.safetensors").symlink_to(tmp_path / "nowhere")
    assert weight_hashes(tmp_path) == {}


def test_a_folder_without_a_manifest(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"is no repo of a Matryoshka family: it holds no {MANIFEST_FILE}"):
        Manifest.from_folder(tmp_path)


def test_weights_are_compared_with_their_hashes(tmp_path):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"graph")
    (tmp_path / "config.json").write_text("{}")
    files = weight_hashes(tmp_path)
    assert files == {
        "model.safetensors": file_hash(tmp_path / "model.safetensors"),
        "onnx/model.onnx": file_hash(tmp_path / "onnx" / "model.onnx"),
    }
    repo = FamilyRepo("d8", "../d8", ["d8"], "stock", None, 0.0, files)
    check_weights(repo, tmp_path)

    (tmp_path / "onnx" / "model.onnx").write_bytes(b"other")
    with pytest.raises(ValueError, match="onnx/model.onnx in .* is not what was exported: its sha256 is [0-9a-f]{64}"):
        check_weights(repo, tmp_path)
    (tmp_path / "onnx" / "model.onnx").unlink()
    with pytest.raises(ValueError, match="lacks onnx/model.onnx"):
        check_weights(repo, tmp_path)
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"graph")
    (tmp_path / "more.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="holds more.safetensors, which its matryoshka.json does not list"):
        check_weights(repo, tmp_path)


def test_a_curve_over_budgets_compares_only_those_inside_each_other():
    budgets = {"w0.5-h4-d4": [0.5, 4, 4], "w1.0-h4-d2": [1.0, 4, 2], "w1.0-h4-d4": [1.0, 4, 4]}
    values = dict(zip(budgets, (0.6, 0.9, 0.7), strict=True))
    levels = [
        FamilyLevel(name, 32, {"macs": 10 * number}, [{**SCORES[0], "value": values[name]}], budget)
        for number, (name, budget) in enumerate(budgets.items(), start=1)
    ]
    (curve,) = manifest(levels=levels).curves()
    assert curve["w1.0-h4-d4"].dim is None
    assert [(pair.smaller, pair.larger) for pair in curve.violations()] == [("w1.0-h4-d2", "w1.0-h4-d4")]
