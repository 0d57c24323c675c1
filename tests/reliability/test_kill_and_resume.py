"""Jobs killed by SIGKILL at ten moments each: they go on, and end as if nothing had been.

A job runs in a fork of this process and dies right before a change of a file that it was about to make. The script
`benchmarks/kill_and_resume.py` does the same to every long job of the command line, at random moments.
"""

import os
import shutil
import signal

import httpx2
import numpy as np
import pytest
from safetensors.torch import load_file
from transformers import AutoTokenizer

from hf_matryoshka.data import embed, pack
from hf_matryoshka.data.files import write_beside
from hf_matryoshka.data.vectors import save_vectors
from hf_matryoshka.hub import repo_sync
from hf_matryoshka.hub.export_family import export_family
from hf_matryoshka.hub.push import push_family
from hf_matryoshka.lsbo.staged_lsbo import StagedLSBO
from hf_matryoshka.recipes.adaptor_recipe import AdaptorRecipe
from hf_matryoshka.recipes.adaptor_vectors import AdaptorVectors
from hf_matryoshka.recipes.run_folder import open_run
from hf_matryoshka.recipes.train_adaptor import train_adaptor

from ..lsbo.lsbo_spaces import QUICK, bowl, make_space
from .forks import in_fork, killed, survives_kills


def test_embedding(tiny, texts, tmp_path, monkeypatch):
    monkeypatch.setattr(embed, "CHUNK_SIZE", 8)

    def job(folder):
        found = embed.embed_texts(tiny, texts, cache_dir=folder / "cache", progress=False)
        save_vectors(found, folder / "vectors.npy")

    survives_kills(job, tmp_path)


def test_packing(tiny_sentence_transformer, texts, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_sentence_transformer)

    def job(folder):
        if not (folder / "rows").exists():
            pack.pack_texts(texts, folder / "rows", tokenizer, max_length=24, buffer_size=12, progress=False)
        with pytest.raises(FileExistsError):
            pack.check_output(folder / "rows")

    survives_kills(job, tmp_path)


def test_a_training_with_its_stages_and_checkpoints(vectors, tmp_path):
    recipe = AdaptorRecipe(unsupervised_steps=6, random_candidates=16, intermediate_size=8, evaluations=3, patience=1)
    training = {"per_device_train_batch_size": 8, "use_cpu": True, "disable_tqdm": True, "save_total_limit": 1}

    def job(folder):
        train_adaptor(AdaptorVectors(vectors), folder / "run", recipe, training=training)

    survives_kills(job, tmp_path, final="run/model")


def test_optimisation(tmp_path):
    space = make_space()
    objective = bowl(space, [0.5, -1.0, 0.2, 0.1])

    def job(folder):
        options = {"maximize": False, "trials": 4, "initial": 3, "acquisition": QUICK, "folder": folder}
        StagedLSBO(space, **options).optimize(objective, progress=False)

    survives_kills(job, tmp_path)


def test_an_export_over_an_earlier_one(make_adaptor, tmp_path):
    model = make_adaptor()
    export_family(model, tmp_path / "start", levels=["d4", "d8"])
    model.adaptor.down.weight.data.mul_(2)

    def job(folder):
        export_family(model, folder, levels=["d4", "d8"])

    survives_kills(job, tmp_path)


def test_a_push(hub, make_adaptor, tmp_path, monkeypatch):
    monkeypatch.setattr(repo_sync, "FIRST_PAUSE", 0.001)
    family = export_family(make_adaptor(), tmp_path / "family", levels=["d4"])
    send = httpx2.Client.send

    def push(moment=None):
        """The push, killed at a request: before it for even numbers, after it for odd ones."""
        count = 0

        def counted(client, *args, **kwargs):
            nonlocal count
            if moment == 2 * count:
                os.kill(os.getpid(), signal.SIGKILL)
            answer = send(client, *args, **kwargs)
            if moment == 2 * count + 1:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return answer

        def job():
            httpx2.Client.send = counted
            push_family(family, "me/tiny")
            return count

        return in_fork(job)

    def state():
        return {name: hub.files(name) for name in hub.repos()}, len(hub.collections.listing())

    status, said = push()
    assert status == 0, said
    expected, requests = state(), int(said)
    for moment in np.linspace(0, 2 * requests - 1, 10).round().astype(int).tolist():
        hub.reset()
        assert push(moment)[0] == -signal.SIGKILL
        status, said = push()
        assert status == 0 and state() == expected, (moment, said)
        # Nothing was committed twice: the first commit is that of the new repo.
        assert all(len(hub.commits(name)) == 2 for name in hub.repos())


def test_what_a_killed_process_was_writing_goes_with_the_next(tmp_path):
    def job(name):
        def write():
            with write_beside(tmp_path / name) as temporary:
                temporary.mkdir()
                (temporary / "half").write_text("x")
                os.kill(os.getpid(), signal.SIGKILL)

        return write

    for name in ("model", "model", "other", "model.txt"):
        assert in_fork(job(name))[0] == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 3  # the second for the same name has removed what the first one left
    with write_beside(tmp_path / "model") as temporary:
        temporary.write_text("whole")
        # Another call for the same name that is at it.
        with write_beside(tmp_path / "model") as other:
            other.write_text("other")
            assert temporary.is_file()
    assert len(os.listdir(tmp_path)) == 3 and (tmp_path / "model").read_text() == "whole"


def test_a_run_that_was_killed_before_it_was_one(tmp_path):
    for moment in range(3):
        folder = tmp_path / str(moment) / "run"
        assert killed(lambda: open_run(folder, "key"), tmp_path, moment) is None  # noqa: B023
        assert open_run(folder, "key") == folder and os.listdir(folder) == ["run.json"]
    # What is left of a run that was about to be replaced does not go on as if it were whole.
    (folder / "training.json").write_text("{}")
    moment = 0
    while killed(lambda: open_run(folder, "other", overwrite=True), tmp_path, moment) is None:
        if (folder / "training.json").is_file() and moment > 2:
            with pytest.raises(ValueError, match="holds other files"):
                open_run(folder, "key")
        moment += 1


def test_a_damaged_checkpoint_is_passed_over(vectors, tmp_path, caplog):
    """As of a machine that lost its power, or of a trainer that wrote under the final name."""
    recipe = AdaptorRecipe(unsupervised_steps=6, random_candidates=16, intermediate_size=8, validation_fraction=0)
    training = {"per_device_train_batch_size": 8, "use_cpu": True, "disable_tqdm": True, "save_steps": 2}
    training["save_total_limit"] = None

    def job(folder):
        train_adaptor(AdaptorVectors(vectors), folder, recipe, training=training)
        return folder / "model" / "model.safetensors"

    expected = load_file(job(tmp_path / "whole"))
    stage = "unsupervised"
    for name in ("model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"):
        # As after a kill between the checkpoints of the steps 4 and 6.
        folder = tmp_path / name
        shutil.copytree(tmp_path / "whole", folder)
        for later in ("model", f"{stage}/finished", f"{stage}/checkpoint-6"):
            shutil.rmtree(folder / later)
        damaged = folder / stage / "checkpoint-4" / name
        damaged.write_bytes(damaged.read_bytes()[:-20])
        caplog.clear()
        found = load_file(job(folder))
        assert f"{damaged} is damaged; the training goes on from the checkpoint before it" in caplog.text
        assert all(np.array_equal(found[key], expected[key]) for key in expected)
