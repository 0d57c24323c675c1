"""`export`, `evaluate` and `frontier` of a Matryoshka Mamba encoder."""

import json
import shutil

import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from hf_matryoshka import MatryoshkaMambaModel
from hf_matryoshka.evaluation.curve import Curve, LevelPoint

from ..modeling import mamba_models


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_sentence_transformer):
    """The folder of a training run: model, tokenizer and what was measured."""
    run = tmp_path_factory.mktemp("run")
    model = mamba_models.make()
    model.save_pretrained(run / "model")
    AutoTokenizer.from_pretrained(tiny_sentence_transformer).save_pretrained(run / "model")
    points = [
        LevelPoint(level, None, 0.5 + row / 8, cost=model.cost(level)) for row, level in enumerate(model.config.levels)
    ]
    Curve(points, "spearman_to_teacher", "heldout", "ours").to_json(run / "curve.json")
    return run


def test_a_run_becomes_a_family(command, run, tmp_path):
    out = tmp_path / "family"
    status, output, error = command("export", run, out, "--budgets", "w0.25", "w1.0", "--license", "mit", "--json")
    assert status == 0, error
    assert {name: repo["form"] for name, repo in json.loads(output).items()} == dict.fromkeys(
        ["w0.25", "w1.0", "full"], "remote_code"
    )
    small = SentenceTransformer(str(out / "w0.25"), device="cpu", trust_remote_code=True)
    assert small.encode("a cat " * 100, matryoshka_dim=16).shape == (16,) and small[0].levels == ("w0.25",)
    assert "`spearman_to_teacher` on `heldout`" in (out / "full" / "README.md").read_text()
    status, output, error = command("family", "show", out)
    header, _, first, *_ = output.splitlines()
    assert header.split()[:4] == ["level", "width", "heads", "layers"]
    assert first.split()[:5] == ["w0.25", "0.25", "2", "2", "192"] and "Output widths: 8, 16, 48" in output

    (tmp_path / "sts").mkdir()
    rows = ["a cat,a dog,3.0", "the city,the large city,4.5", "gene,cell,2.0", "a river,protein,0.5"]
    (tmp_path / "sts" / "test.csv").write_text("\n".join(["sentence1,sentence2,score", *rows]) + "\n")
    arguments = [
        "evaluate",
        out / "full",
        "--trust-remote-code",
        "--sts",
        tmp_path / "sts",
        "--no-baselines",
        "--json",
    ]
    found = []
    for level in ([], ["--level", "w0.25"]):
        status, output, error = command(*arguments, *level)
        assert status == 0, error
        (curve,) = json.loads(output).values()
        assert [row["level"] for row in curve] == ["d8", "d16", "d48"]
        found.append([row["value"] for row in curve])
    assert found[0] != found[1]


def test_a_frontier_is_measured_stored_and_exported(command, run, beir, tmp_path, tiny_sentence_transformer):
    work = shutil.copytree(run, tmp_path / "run")
    status, output, error = command("frontier", work, "--beir", beir, "--lengths", "8,16", "--num-docs", 1000)
    assert status == 0, error
    header, _, first, *others, path = output.splitlines()
    assert header.split()[:4] == ["level", "dim", "ndcg_at_10", "retained"] and first.split()[:2] == ["w0.25", "8"]
    assert (
        len(others) == 8 and others[-1].split()[3] == "1" and path == str(work / "model" / "dimension_frontier.json")
    )
    status, output, error = command("frontier", work, "--beir", beir, "--lengths", "8", "--json")
    assert status == 0 and len(json.loads(output)) == 9 and "Frontier" in error
    model = MatryoshkaMambaModel.from_pretrained(work / "model")
    assert model.frontier.split == "animals test" and len(model.frontier.points[0].scores) == 20
    status, _, error = command("export", work, tmp_path / "family", "--budgets", "w1.0")
    assert status == 0, error
    exported = MatryoshkaMambaModel.from_pretrained(tmp_path / "family" / "full")
    assert exported.frontier == model.frontier
    assert "animals test" in (tmp_path / "family" / "full" / "README.md").read_text()

    (work / "model" / "dimension_frontier.json").unlink()
    for arguments, message in [
        ((work, "--beir", tmp_path), "corpus.jsonl"),
        (
            (work, "--beir", beir, "--split", "dev"),
            "split 'dev' does not exist in animals; its splits are: test, train",
        ),
        ((tiny_sentence_transformer, "--beir", beir), "which has no levels"),
        ((tmp_path, "--beir", beir), "holds no Mamba encoder with its tokenizer"),
    ]:
        status, output, error = command("frontier", *arguments)
        assert status == 2 and output == "" and message in error and error.count("\n") == 1, (arguments, error)
    assert not (work / "model" / "dimension_frontier.json").exists()


def test_bad_input_is_one_sentence(command, run, tmp_path):
    for arguments, message in [
        (("--budgets", "w0.3"), f"level 'w0.3' was not trained; the levels of {run / 'model'} are w0.25, w0.5, w1.0"),
        (("--budgets", "0.5:6:6"), "level '0.5:6:6' was not trained"),
        (("--dims", "16"), "--dims is for adaptors"),
        (("--format", "stock"), "for which sentence-transformers has no module"),
    ]:
        status, output, error = command("export", run, tmp_path / "out", *arguments)
        assert status == 2 and output == "" and error.startswith("Error: "), (arguments, error)
        assert error.count("\n") == 1 and message in error and not (tmp_path / "out").exists(), error
