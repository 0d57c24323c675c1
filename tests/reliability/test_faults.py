"""What is out of order around a job: one sentence says so, nothing is lost or half-written, and the same call succeeds
once the fault is gone."""

import json
import math
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import _http
from transformers import AutoTokenizer

from hf_matryoshka.data import embed, pack
from hf_matryoshka.data.files import writing
from hf_matryoshka.data.vectors import save_vectors
from hf_matryoshka.hub import repo_sync
from hf_matryoshka.hub.export import export_level
from hf_matryoshka.hub.export_family import export_family
from hf_matryoshka.hub.family import load_family
from hf_matryoshka.hub.local import Faults
from hf_matryoshka.hub.push import push_family
from hf_matryoshka.lsbo.staged_lsbo import StagedLSBO
from hf_matryoshka.recipes.adaptor_recipe import AdaptorRecipe
from hf_matryoshka.recipes.adaptor_vectors import AdaptorVectors
from hf_matryoshka.recipes.delta_recipe import DeltaRecipe
from hf_matryoshka.recipes.funnel_recipe import FunnelRecipe
from hf_matryoshka.recipes.train_adaptor import train_adaptor
from hf_matryoshka.recipes.train_delta import train_delta
from hf_matryoshka.recipes.train_funnel import train_funnel

from ..lsbo.lsbo_spaces import QUICK, bowl, make_space
from .forks import check_whole, content, in_fork, limit_files


TRAINING = {"per_device_train_batch_size": 8, "use_cpu": True, "disable_tqdm": True, "max_steps": 4, "save_steps": 2}
FUNNEL = {"kind": "residual", "matryoshka_dims": [2, 4], "encoder_sizes": [16], "predictor_sizes": [8]}
FUNNEL |= {"decoder_sizes": [16], "validation_fraction": 0.1, "test_fraction": 0.1}


@pytest.fixture(scope="module")
def jobs(tiny, tiny_sentence_transformer, texts, vectors, make_adaptor, tmp_path_factory):
    """By name, functions of a folder."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_sentence_transformer)
    file = tmp_path_factory.mktemp("vectors") / "vectors.npy"
    save_vectors(vectors, file)
    space, adaptor = make_space(), make_adaptor()
    objective = bowl(space, [0.5, -1.0, 0.2, 0.1])
    long = [f"{text} {text} {text}" for text in texts]
    training = {name: value for name, value in TRAINING.items() if name != "max_steps"}
    recipe = AdaptorRecipe(unsupervised_steps=4, random_candidates=16, intermediate_size=64, validation_fraction=0)

    def optimise(folder):
        options = {"maximize": False, "trials": 5, "initial": 5, "acquisition": QUICK, "folder": folder / "run"}
        StagedLSBO(space, **options).optimize(objective, q=5, progress=False)

    return {
        "embed": lambda folder: embed.embed_texts(tiny, texts, cache_dir=folder / "cache", progress=False),
        "vectors": lambda folder: [save_vectors(vectors, folder / f"x{kind}") for kind in (".npy", ".arrow")],
        "pack": lambda folder: pack.pack_texts(long, folder / "rows", tokenizer, max_length=32, progress=False),
        "adaptor": lambda folder: train_adaptor(AdaptorVectors(vectors), folder / "run", recipe, training=training),
        "funnel": lambda folder: train_funnel(FunnelRecipe(vectors=str(file), **FUNNEL), folder / "run", TRAINING),
        "optimise": optimise,
        "export": lambda folder: export_family(adaptor, folder / "family", levels=["d4"]),
    }


JOBS = ("embed", "vectors", "pack", "adaptor", "funnel", "optimise", "export")


@pytest.fixture
def recovers(jobs):
    """Runs a job in a folder under a fault, then without it; it must say the fault, and end as if it had not been."""

    def run(name, folder, before, messages):
        (folder / "whole").mkdir()
        jobs[name](folder / "whole")
        expected = content(folder / "whole")
        (folder / "job").mkdir()
        before_it = sorted(folder.iterdir())
        status, said = in_fork(lambda: jobs[name](folder / "job"), lambda: before(folder / "job"))
        kind, _, sentence = said.partition(": ")
        assert status == 1 and kind in ("OSError", "PermissionError"), said
        assert "\n" not in sentence and any(message in sentence for message in messages), said
        assert str(folder / "job") in sentence, said
        check_whole(folder / "job")
        assert sorted(folder.iterdir()) == before_it
        left = [path for path in (folder / "job").rglob(".*") if path.name != ".rows.packing"]
        assert not left, left
        os.chmod(folder / "job", 0o755)
        jobs[name](folder / "job")
        found = content(folder / "job")
        skipped = ("checkpoint", "trainer_state", "training_args")
        for path in expected:
            if not any(word in path for word in skipped):
                same = path in found and found[path] == expected[path]
                assert same or path.endswith((".png", "state.json")), path
        assert found.keys() == expected.keys()

    return run


@pytest.mark.parametrize("name", JOBS)
def test_a_full_disk(recovers, name, tmp_path):
    """No file may have more than 900 bytes."""
    recovers(name, tmp_path, lambda folder: limit_files(900)(), ["cannot be written: ", "file too large"])


@pytest.mark.parametrize("name", ["vectors", "pack", "adaptor", "optimise", "export"])
def test_a_folder_that_may_only_be_read(recovers, name):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)

        def forbid(job):
            os.chmod(job, 0o555)
            if os.geteuid() == 0:  # who may write anywhere
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)

        messages = ["is not writable", "permission denied", "Permission denied"]
        recovers(name, Path(folder), forbid, messages)


def test_libraries_that_hide_what_the_system_said(tmp_path):
    import errno

    for error in (
        RuntimeError("Error: I/O error: No space left on device (os error 28)"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("100 requested and 20 written"),
    ):
        with pytest.raises(OSError, match="x.npy cannot be written: no space left on device; what was") as found:
            with writing(tmp_path / "x.npy"):
                raise error
        assert found.value.errno == errno.ENOSPC
    with pytest.raises(RuntimeError, match="other"), writing(tmp_path):
        raise RuntimeError("other")


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command line where it must refuse; returns its sentence."""
    from hf_matryoshka.cli import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["hf-matryoshka", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
        assert stop.value.code == 2 and len(said) == 1
        return said[0]

    return run


def cut_short(path, left=0.5):
    path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])


def test_weights_that_are_cut_short(jobs, tiny_sentence_transformer, command, tmp_path):
    jobs["funnel"](tmp_path)
    jobs["adaptor"](tmp_path / "adaptor")
    shutil.copytree(tiny_sentence_transformer, tmp_path / "encoder")
    (tmp_path / "texts.txt").write_text("a cat\na dog\n")
    (tmp_path / "scores.py").write_text("def first(x):\n    return float(x[0])\n")
    for folder in ("run/model", "adaptor/run/model", "encoder"):
        cut_short(tmp_path / folder / "model.safetensors")
    kept = content(tmp_path)
    scores = ["--objective", "math:sqrt", "--output", tmp_path / "out", "--maximize"]
    for arguments, folder in (
        (["export", tmp_path / "run", tmp_path / "out", "--vectors-only"], "run/model"),
        (["export", tmp_path / "adaptor" / "run", tmp_path / "out", "--vectors-only"], "adaptor/run/model"),
        (["optimize", "--funnel", tmp_path / "run", *scores], "run/model"),
        (["embed", tmp_path / "texts.txt", tmp_path / "out.npy", "--model", tmp_path / "encoder"], "encoder"),
        (["train", "funnel", tmp_path / "out", "--vectors", tmp_path / "none.npy"], None),
    ):
        said = command(*arguments)
        assert folder is None or f"the weights in {tmp_path / folder} are damaged (" in said, said
    assert content(tmp_path) == kept


def test_packed_rows_that_are_damaged(tiny_sentence_transformer, texts, tmp_path, caplog):
    (tmp_path / "texts.txt").write_text("\n".join(texts * 4))
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_length": 24, "vocab_size": 300}
    recipe = DeltaRecipe(texts=[str(tmp_path / "texts.txt")], validation_fraction=0.2, **sizes)
    train_delta(recipe, tmp_path / "run", TRAINING)
    expected = content(tmp_path / "run" / "model")
    # A run mends its own ...
    for name in ("model", "checkpoints"):
        shutil.rmtree(tmp_path / "run" / name)
    os.remove(tmp_path / "run" / "training.json")
    (file,) = (tmp_path / "run" / "data" / "train").glob("*.arrow")
    cut_short(file, 0.8)
    shutil.copytree(tmp_path / "run" / "data" / "train", tmp_path / "rows")
    train_delta(recipe, tmp_path / "run", TRAINING)
    assert f"the rows in {tmp_path / 'run' / 'data' / 'train'} are damaged" in caplog.text
    assert content(tmp_path / "run" / "model") == expected
    # ... and of others it says that they are.
    tokenizer = str(tmp_path / "run" / "tokenizer")
    sizes = {**sizes, "pretokenized_path": str(tmp_path / "rows"), "tokenizer": tokenizer}
    with pytest.raises(ValueError, match=r"the rows in .*/rows are damaged \(.*\); pack the texts again"):
        train_delta(DeltaRecipe(**sizes), tmp_path / "other", TRAINING)


def test_a_state_of_an_optimisation_that_is_damaged(jobs, tmp_path):
    jobs["optimise"](tmp_path)
    run = tmp_path / "run"
    for name in ("trials.safetensors", "state.json"):
        cut_short(run / name)
        kept = content(run) if name == "trials.safetensors" else None
        with pytest.raises(ValueError, match=f"{name} is (missing or )?damaged.*name another folder"):
            jobs["optimise"](tmp_path)
        assert kept is None or content(run) == kept


def test_an_objective_that_fails(tmp_path):
    space = make_space()
    good, answers = bowl(space, [0.5, -1.0, 0.2, 0.1]), iter([1, math.nan, 1, math.inf, RuntimeError("no"), 1, 1, 1])

    def objective(embedding):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer * good(embedding)

    run = StagedLSBO(space, maximize=False, trials=8, initial=6, acquisition=QUICK, folder=tmp_path)
    run.optimize(objective, progress=False)
    told = json.loads((tmp_path / "state.json").read_text())["trials"]
    assert [trial["status"] for trial in told] == [
        "failed" if number in (1, 3, 4) else "complete" for number in range(8)
    ]
    assert [told[number]["reason"] for number in (1, 3, 4)] == [
        "the objective gave nan",
        "the objective gave inf",
        "RuntimeError: no",
    ]


def test_a_model_that_gives_nan(tiny, texts, tmp_path):
    weight = tiny[0].auto_model.encoder.layer[1].output.dense.bias.data
    kept = weight.clone()
    try:
        weight[3] = math.nan
        with pytest.raises(ValueError, match=r"the vectors of texts\[0:48\] must be finite float32 numbers, got NaN"):
            embed.embed_texts(tiny, texts, cache_dir=tmp_path, progress=False)
    finally:
        weight.copy_(kept)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert np.isfinite(embed.embed_texts(tiny, texts, cache_dir=tmp_path, progress=False)).all()


def test_vectors_with_nan(vectors, command, tmp_path):
    damaged = vectors.copy()
    damaged[7, 3] = math.nan
    np.save(tmp_path / "x.npy", damaged)
    for system in ("adaptor", "funnel"):
        said = command("train", system, tmp_path / "run", "--vectors", tmp_path / "x.npy")
        assert "x.npy must be finite float32 numbers, got NaN in row 7" in said
    assert os.listdir(tmp_path) == ["x.npy"]


def test_a_training_that_ends_in_nan(vectors, tmp_path):
    """It keeps what it had before, and saves nothing."""
    recipe = AdaptorRecipe(unsupervised_steps=8, random_candidates=16, intermediate_size=8, validation_fraction=0)
    training = {**TRAINING, "logging_steps": 1, "max_steps": 8}
    step = torch.optim.AdamW.step

    def spoil(self, *args, **kwargs):
        step(self, *args, **kwargs)
        count["steps"] += 1
        if count["steps"] == 5:
            self.param_groups[0]["params"][0].data.fill_(math.nan)

    count = {"steps": 0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", spoil)
        with pytest.raises(ValueError, match="loss_d.* is NaN by step 6: give a smaller learning_rate, or look for"):
            train_adaptor(AdaptorVectors(vectors), tmp_path, recipe, training=training)
    assert not (tmp_path / "model").exists()
    assert sorted(os.listdir(tmp_path / "unsupervised")) == ["checkpoint-2", "checkpoint-4"]
    train_adaptor(AdaptorVectors(vectors), tmp_path, recipe, training=training)


@pytest.fixture
def quick_retries(monkeypatch):
    monkeypatch.setattr(repo_sync, "FIRST_PAUSE", 0.0005)
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)


def test_a_hub_that_drops_a_fifth_of_its_answers(hub, quick_retries, make_adaptor, tmp_path):
    family = export_family(make_adaptor(), tmp_path / "family", levels=["d4", "d8"])
    ids = ["me/tiny-d4", "me/tiny-d8", "me/tiny"]
    dropped = 0
    for seed in range(8):
        hub.reset()
        hub.faults = Faults(drop=0.2, seed=seed)
        report = push_family(family, "me/tiny")
        dropped += sum(request.fault is not None for request in hub.requests)
        hub.faults = None
        assert report.repo_ids == ids
        for name, repo_id in zip(("d4", "d8", "full"), ids, strict=True):
            folder = family.repos[name].folder
            whole = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
            assert set(HfApi().list_repo_files(repo_id)) - {".gitattributes"} == whole
            assert len(hub.commits(repo_id)) == 2
        assert push_family(family, "me/tiny").commits == []
    assert dropped > 30


def test_silence_of_the_hub_is_not_taken_for_an_empty_repo(hub, quick_retries, make_adaptor, tmp_path, monkeypatch):
    """A level is not pushed over a full model, however often the manifest there does not come."""
    push_family(export_family(make_adaptor(), tmp_path / "family", levels=["d4"]), "me/tiny")
    export_level(make_adaptor(), "d8", tmp_path / "d8")
    download, lost = HfApi.hf_hub_download, iter(range(2))

    def lossy(self, *args, **kwargs):
        if next(lost, None) is not None:
            raise LocalEntryNotFoundError("the Hub did not answer")
        return download(self, *args, **kwargs)

    monkeypatch.setattr(HfApi, "hf_hub_download", lossy)
    with pytest.raises(FileExistsError, match="me/tiny on the Hub is the repo full of a family, not d8"):
        load_family(tmp_path / "d8").push("me/tiny")
    lost = iter(range(99))
    with pytest.raises(ConnectionError, match="the push of me/tiny did not go through in 6 attempts: the Hub did not"):
        load_family(tmp_path / "d8").push("me/tiny")
