"""What a person sees of a run."""

import json

import numpy as np
import pytest
from PIL import Image

from hf_matryoshka.lsbo.optimizers import make_optimizer
from hf_matryoshka.lsbo.report import diagnostics, save_report, stage_table
from hf_matryoshka.lsbo.trace_plot import trace_plot

from .lsbo_spaces import QUICK, bowl, make_space


AT = [1.0, -1.5, 0.5, 0.8]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One that fails on one side, in two stages."""
    space = make_space()
    distance = bowl(space, AT)

    def objective(embedding):
        value = distance(embedding)
        if value > 12:
            raise RuntimeError("too far")
        return -value

    folder = tmp_path_factory.mktemp("run")
    run = make_optimizer("staged", space, maximize=True, trials=14, initial=7, acquisition=QUICK, folder=folder)
    run.optimize(objective, progress=False)
    return run


def test_the_table_has_a_row_a_stage(run):
    rows = stage_table(run)
    assert [(row["stage"], row["coordinates"]) for row in rows] == [(0, 2), (1, 4)]
    assert [row["trials"] for row in rows] == [stage.budget for stage in run.stages]
    assert sum(row["failed"] for row in rows) == sum(trial.status == "failed" for trial in run.trials) > 0
    assert rows[0]["best"] == rows[0]["best_so_far"] <= rows[1]["best_so_far"] == run.best.value
    assert all(row["pending"] == row["duplicates"] == 0 and row["seconds"] > 0 for row in rows)


def test_the_report_of_a_run(run):
    found = save_report(run)
    assert json.loads((run.folder / "summary.json").read_text()) == found
    assert found["best"]["value"] == run.best.value and found["trials"] == found["planned"] == 14
    fit = found["diagnostics"]["leave_one_out"]
    # A bowl in four dimensions is easily learnt.
    assert fit["model"] == "embeddings" and fit["observations"] == len(run.completed)
    assert fit["rmse"] < 0.5 * fit["spread"] and fit["correlation"] > 0.8 and 0.5 < fit["coverage"] <= 1
    assert 0 < found["diagnostics"]["failure_rate"] < 1 and found["diagnostics"]["duplicate_rate"] == 0
    assert Image.open(run.folder / "trace.png").size[0] == 1050


def test_a_trace_shows_the_regret_where_the_optimum_is_known(run, tmp_path):
    trace_plot(run, tmp_path / "regret.png", optimum=0.0, title="bowl")
    trace_plot(run, tmp_path / "value.png", title="bowl")
    found = [np.asarray(Image.open(tmp_path / name)) for name in ("regret.png", "value.png")]
    assert not np.array_equal(*found)


def test_rates_count_what_they_say():
    space = make_space(decode_texts=lambda embeddings: ["up" if row[0] > 0 else "down" for row in embeddings])
    run = make_optimizer("random", space, maximize=False, trials=6)
    with pytest.raises(ValueError, match="none of 0 trials has a value"):
        trace_plot(run, "none.png")
    with pytest.raises(ValueError, match="this run has no folder"):
        save_report(run)
    assert stage_table(run) == [] and diagnostics(run)["failure_rate"] == 0
    for trial in run.ask(6):
        trial.coordinates[:2] = 3.0
        run.tell(trial, None if trial.id == 0 else 1.0)
    found = diagnostics(run)
    assert found["boundary_rate"] == 0.5 and found["failure_rate"] == pytest.approx(1 / 6)
    assert found["duplicate_rate"] == pytest.approx(4 / 6) and stage_table(run)[0]["duplicates"] == 4
    # Equal values say nothing about a model.
    assert found["leave_one_out"] is None


@pytest.mark.parametrize("surrogate", ["saas", "linear", "embeddings"])
def test_the_fit_is_that_of_the_run_s_model(surrogate):
    space = make_space()
    run = make_optimizer("staged", space, maximize=False, trials=16, initial=16, surrogate=surrogate, mode="full")
    run.optimize(lambda embedding: float(embedding[0]), progress=False)
    fit = diagnostics(run)["leave_one_out"]
    assert fit["model"] == surrogate and fit["correlation"] > 0.7
