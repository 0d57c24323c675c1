"""Eight rows a step, divided in three ways: at once, in two micro-batches, in two processes.

Each trainer's losses of 20 steps must be the same to five digits, and those of `trajectories.json`, which
`python -m tests.trainers.test_invariance` writes. What a trainer compares within a micro-batch has its own run, or is
switched off here: see the docstring of the trainer.
"""

import json
from pathlib import Path

import pytest

from .invariance_runs import ACCUMULATED, RUNS, STEPS, WHOLE, run


TRAJECTORIES = Path(__file__).with_name("trajectories.json")
# Processors and versions of torch round differently, and steps add that up.
ELSEWHERE = 2e-3
SCRIPT = "from tests.trainers.invariance_runs import main\n\nmain()\n"
# What compares the rows of a micro-batch with each other, of all processes: two micro-batches are another problem.
COMPARED = ["delta_embedding_relational", "funnel_relational", "mamba_pairs"]
# Dolls whose rows lie apart: a step is the mean of its micro-batches, wherever they are computed.
APART = ["fractal_apart"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The logs of runs with one batch a step."""
    folder = tmp_path_factory.mktemp("whole")
    return {name: run(name, folder / name, **WHOLE) for name in RUNS}


@pytest.fixture(scope="module")
def accumulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("accumulated")
    return {name: run(name, folder / name, **ACCUMULATED) for name in RUNS}


def same(found, expected, name):
    assert len(found) == len(expected) == STEPS
    for step, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one.keys() == other.keys(), (name, step)
        # What is logged of a level is rounded to six places.
        assert one == pytest.approx(other, rel=1e-5, abs=3e-6), (name, step)


@pytest.mark.parametrize("name", [name for name in RUNS if name not in (*APART, *COMPARED)])
def test_micro_batches(whole, accumulated, name):
    same(accumulated[name], whole[name], name)


def test_processes(whole, accumulated, run_in_two_processes, tmp_path):
    output = tmp_path / "result.json"
    run_in_two_processes(SCRIPT, tmp_path / "runs", output)
    result = json.loads(output.read_text())
    assert result["processes"] == 2 and result["runs"].keys() == RUNS.keys()
    differing = {}
    for name, found in result["runs"].items():
        try:
            same(found, (accumulated if name in APART else whole)[name], name)
        except AssertionError as error:
            differing[name] = str(error)
    assert not differing, "\n".join(differing.values())
    for name, found in result["resumed"].items():
        same(found, whole[name], name)


@pytest.mark.parametrize("name", RUNS)
def test_trajectories_are_those_that_are_committed(whole, name):
    expected = json.loads(TRAJECTORIES.read_text())[name]
    assert [row["loss"] for row in whole[name]] == pytest.approx(expected, rel=ELSEWHERE)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        losses = {name: [float(f"{row['loss']:.7g}") for row in run(name, folder, **WHOLE)] for name in RUNS}
    TRAJECTORIES.write_text(json.dumps(losses, indent=None, separators=(",\n", ": ")) + "\n", encoding="utf-8")
