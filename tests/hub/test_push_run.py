"""A run of an optimiser on its way to a hub: real commits, on loopback."""

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from huggingface_hub import HfApi, hf_hub_download, snapshot_download

from hf_matryoshka.hub import repo_sync
from hf_matryoshka.hub.push_run import push_run
from hf_matryoshka.lsbo.optimizers import make_optimizer
from hf_matryoshka.lsbo.report import save_report
from hf_matryoshka.lsbo.search_space import SearchSpace
from hf_matryoshka.surgery.funnel_init import init_funnel


SIZES = {"matryoshka_dims": [2, 4], "encoder_sizes": [4], "predictor_sizes": [4], "decoder_sizes": [4]}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(repo_sync, "FIRST_PAUSE", 0.001)


@pytest.fixture(scope="module")
def space():
    rows = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)
    return SearchSpace(init_funnel(rows, **SIZES), decode_texts=lambda found: [f"text {row[0]:.3f}" for row in found])


def run_in(folder, space, trials=8):
    run = make_optimizer("random", space, maximize=True, trials=trials, folder=folder)
    run.optimize(lambda text: float(text.split()[1]), progress=False)
    return run


def commits(repo_id):
    return [commit.title for commit in HfApi().list_repo_commits(repo_id, repo_type="dataset")]


def test_a_run_is_a_data_set_with_a_card(hub, space, tmp_path):
    run = run_in(tmp_path / "run", space)
    save_report(run, about={"objective": "scores:first"})
    pushed = push_run(tmp_path / "run", "me/search")
    assert pushed.repo_id == "me/search" and commits("me/search") == ["Upload a run", "initial commit"]
    assert not hub.repos("model")
    trials = load_dataset("me/search", split="train")
    assert trials["value"] == [trial.value for trial in run.trials] and trials["text"][0] == run.trials[0].text
    card = Path(hf_hub_download("me/search", "README.md", repo_type="dataset")).read_text()
    assert "# random: scores:first" in card and "![Values" in card and "](trace.png)" in card
    assert f"Best value: **{run.best.value:.4g}**" in card and f"    {run.best.text}\n" in card
    assert f"| 0 | 4 | 8 | {run.best.value:.4g} |" in card and "Gaussian process (`rbf`) of the 8 values" in card
    assert str(tmp_path) not in card and "`optimizer` random" in card
    # What is there already is not sent again; what is new is.
    assert push_run(tmp_path / "run", "search").commit is None and len(commits("me/search")) == 2
    folder = snapshot_download("me/search", repo_type="dataset", local_dir=tmp_path / "other")
    assert len(make_optimizer("random", space, maximize=True, trials=8, folder=folder).completed) == 8


def test_what_is_no_run_is_neither_pushed_nor_replaced(hub, space, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run with its report"):
        push_run(tmp_path, "me/search")
    run = run_in(tmp_path / "run", space, trials=3)
    with pytest.raises(FileNotFoundError, match=r"\(no summary.json, no trace.png\); save_report writes one"):
        push_run(tmp_path / "run", "me/search")
    save_report(run)
    HfApi().create_repo("me/other", repo_type="dataset")
    HfApi().upload_file(path_or_fileobj=b"1", path_in_repo="x.csv", repo_id="me/other", repo_type="dataset")
    with pytest.raises(FileExistsError, match="me/other on the Hub is no run"):
        push_run(tmp_path / "run", "me/other")
    push_run(tmp_path / "run", "me/other", overwrite=True, private=True)
    # It was public before.
    assert HfApi().repo_info("me/other", repo_type="dataset").private
    assert "x.csv" not in HfApi().list_repo_files("me/other", repo_type="dataset")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["diagnostics"]["leave_one_out"] is None
    with pytest.raises(PermissionError):
        push_run(tmp_path / "run", "somebody/search")
