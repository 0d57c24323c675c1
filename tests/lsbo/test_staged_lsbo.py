import json
import math
import multiprocessing
import os
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from hf_matryoshka.lsbo.staged_lsbo import StagedLSBO
from hf_matryoshka.lsbo.stages import ORIGINAL_BUDGETS, plan_stages

from .lsbo_spaces import QUICK, bowl, make_space


AT = [1.0, -1.5, 0.5, 0.8]


@pytest.fixture(scope="module")
def space():
    return make_space()


def optimizer(space, **options):
    return StagedLSBO(space, **{"maximize": False, "trials": 16, "initial": 6, "acquisition": QUICK, **options})


@pytest.mark.parametrize("mode", ["nested", "frozen", "full"])
@pytest.mark.parametrize("maximize", [False, True])
def test_a_bowl_is_solved_in_both_directions(space, mode, maximize):
    """The first public staged optimiser proposed the worst points; it would end where it began."""
    distance = bowl(space, AT)
    objective = (lambda x: -distance(x)) if maximize else distance
    run = optimizer(space, mode=mode, maximize=maximize)
    best = run.optimize(objective, progress=False)
    first = run.trials[0]
    assert first.origin == "start" and not first.coordinates.any()
    assert abs(best.value) < 0.15 * abs(first.value), (mode, best.value, first.value)
    found = np.array(run.best_values())
    assert (np.diff(found) >= 0).all() if maximize else (np.diff(found) <= 0).all()
    # The model's proposals are better than random ones.
    by = {kind: [t.value for t in run.trials if t.origin == kind] for kind in ("random", "model")}
    assert np.median(np.abs(by["model"])) < np.median(np.abs(by["random"]))


def test_stages_set_what_they_say(space):
    nested = optimizer(space)
    nested.optimize(bowl(space, AT), progress=False)
    budgets = [stage.budget for stage in nested.stages]
    assert sum(budgets) == 16 and [trial.stage for trial in nested.trials] == [0] * budgets[0] + [1] * budgets[1]
    rows = np.array([trial.coordinates for trial in nested.trials])
    assert not rows[: budgets[0], 2:].any() and rows[budgets[0] :, 2:].any(axis=1).mean() > 0.9
    assert len({tuple(row) for row in rows[budgets[0] :, :2].round(6)}) > 3
    frozen = optimizer(space, mode="frozen")
    frozen.optimize(bowl(space, AT), progress=False)
    first = [trial for trial in frozen.trials if trial.stage == 0]
    best = min(first, key=lambda trial: trial.value).coordinates
    for trial in frozen.trials:
        if trial.stage == 1:
            np.testing.assert_allclose(trial.coordinates[:2], best[:2], atol=1e-6)
    assert all(trial.active_dim == 4 for trial in optimizer(space, mode="full").ask(1))


def test_frozen_blocks_are_opened_again_where_that_promises_more(space):
    run = optimizer(space, mode="frozen", reopen=True, trials=14, budgets=[6, 8])
    run.optimize(bowl(space, AT), progress=False)
    prefixes = {tuple(trial.coordinates[:2].round(6)) for trial in run.trials if trial.stage == 1}
    assert len(prefixes) > 1
    assert run.best.value < 0.2 * run.trials[0].value


def test_a_killed_run_ends_as_the_uninterrupted_one(space, tmp_path):
    objective = bowl(space, AT)

    class Killed(BaseException):
        pass

    def options(folder):
        return {"trials": 10, "folder": folder, "trust_region": True, "stage_patience": 4, "budgets": [7, 3]}

    whole = optimizer(space, **options(tmp_path / "whole"))
    whole.optimize(objective, q=2, progress=False)
    expected = [(trial.coordinates.tolist(), trial.value) for trial in whole.trials]
    rng = np.random.default_rng(0)
    for number in range(10):
        left = int(rng.integers(1, 10))

        def dies(candidate):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return objective(candidate)

        folder = tmp_path / str(number)
        with pytest.raises(Killed):
            optimizer(space, **options(folder)).optimize(dies, q=2, progress=False)
        resumed = optimizer(space, **options(folder))
        resumed.optimize(objective, q=2, progress=False)
        assert [(trial.coordinates.tolist(), trial.value) for trial in resumed.trials] == expected
    with pytest.raises(ValueError, match="holds a run with another seed; name another one"):
        optimizer(space, **options(tmp_path / "whole"), seed=1)
    other = make_space((2, 5))
    with pytest.raises(ValueError, match="holds a run with another space"):
        optimizer(other, **options(tmp_path / "whole"))


def test_tells_may_come_late_in_part_or_fail(space):
    objective = bowl(space, AT)
    run = optimizer(space, trials=30)
    open_trials = run.ask(3) + run.ask(3)
    for trial in reversed(open_trials[2:]):
        run.tell(trial.id, objective(trial.embedding))
    more = run.ask(2)
    assert [trial.origin for trial in more] == ["model", "model"]
    # The open ones count as known: no two of them are alike.
    rows = np.array([trial.coordinates for trial in (*open_trials[:2], *more)])
    assert all(np.abs(a - b).max() > 1e-3 for n, a in enumerate(rows) for b in rows[:n])
    run.tell(open_trials[0], float("nan"))
    run.tell(open_trials[1])
    assert [trial.status for trial in run.trials[:3]] == ["failed", "failed", "complete"]
    assert run.trials[0].reason == "the objective gave nan" and run.trials[1].reason == "no value"
    with pytest.raises(ValueError, match="trial 0 was told before"):
        run.tell(0, 1.0)
    with pytest.raises(ValueError, match="trial 99 does not exist; there are 8"):
        run.tell(99, 1.0)
    with pytest.raises(ValueError, match="must give a number, but gave a str"):
        run.tell(more[0], "good")
    with pytest.raises(ValueError, match=r"one number, but gave values of shape \(2,\)"):
        run.tell(more[0], [1.0, 2.0])
    with pytest.raises(ValueError, match="variance must be a number from 0 on"):
        run.tell(more[0], 1.0, variance=-1)


def test_points_that_fail_are_avoided(space):
    objective = bowl(space, AT)

    def half(embedding):
        coordinates = space.encode(embedding[None])[0]
        if coordinates[0] < -0.3:
            raise RuntimeError("not on this side")
        return objective(embedding)

    run = optimizer(space, trials=20, initial=10, seed=1)
    run.optimize(half, progress=False)
    failed = [trial for trial in run.trials if trial.status == "failed"]
    assert failed and "RuntimeError: not on this side" in failed[0].reason
    by_model = [trial for trial in run.trials if trial.origin == "model"]
    assert sum(trial.status == "failed" for trial in by_model) < 0.25 * len(by_model)
    with pytest.raises(ValueError, match="none of 16 trials has a value; the last one: ZeroDivisionError"):
        optimizer(space).optimize(lambda _: 1 / 0, progress=False)


def test_texts_that_are_known_are_not_evaluated_again(space):
    words = ["a", "b", "c", "d", "e", "f", "g", "h"]
    signs = np.array([4, 2, 1])

    def texts(embeddings):
        return [words[int((row > 0) @ signs)] for row in space.encode(embeddings)[:, :3]]

    with_texts = make_space(decode_texts=texts)
    seen = []

    def objective(text):
        seen.append(text)
        return float(words.index(text))

    run = optimizer(with_texts, maximize=True, trials=12)
    best = run.optimize(objective, progress=False)
    by_model = [trial.text for trial in run.trials if trial.origin == "model"]
    assert best.value == 7 and run.duplicates > 0 and len(by_model) == len(set(by_model))
    # All eight, by the model: the first ones by chance, the others because only texts that are new are chosen from.
    assert set(seen) == set(words)


@pytest.mark.parametrize(
    ("options", "fewest"),
    [
        ({"noisy": True}, 8),
        ({"prior_weight": 1.0}, 8),
        ({"typical_set": 0.9}, 8),
        # A small box has few new texts, and so have the stages of these, which begin with random trials.
        ({"trust_region": True}, 4),
        ({"mode": "frozen"}, 3),
    ],
    ids=["noisy", "prior", "typical", "region", "frozen"],
)
def test_new_texts_are_found_with_every_option(space, options, fewest):
    """Few texts, so that the first look finds known ones; as long as there are new ones, none is left to chance."""

    def texts(embeddings):
        return [str(int(np.clip(row[0] + 2 * row[2] + 6, 0, 11))) for row in space.encode(embeddings)]

    options = {"maximize": True, "surrogate": "rbf", "trials": 12, "budgets": [5, 7], "initial": 4} | options
    run = optimizer(make_space(decode_texts=texts), **options)
    run.optimize(float, progress=False)
    by_model = [trial.text for trial in run.trials if trial.origin == "model"]
    assert run.duplicates > 0 and len(by_model) == len(set(by_model)) >= fewest


def test_drawn_points_stay_in_the_trust_region(space):
    with_texts = make_space(decode_texts=lambda embeddings: [str(row.round(4)) for row in embeddings])
    run = optimizer(with_texts, trust_region=True, trials=10, initial=8)
    for trial in run.ask(8):
        run.tell(trial, float((trial.coordinates**2).sum()))
    run.region.length = 0.1
    problem = run._problem(run.stage, [], None)
    found = run._best_drawn(run.stage, problem, 5, 0, [])
    least, most = run._box(problem)[1].numpy()
    end = run.stage.end
    cube = with_texts.to_unit(torch.from_numpy(found)).numpy()[:, :end]
    assert (cube >= least[:end] - 1e-9).all() and (cube <= most[:end] + 1e-9).all() and len(found) == 5


def test_what_is_known_before_the_start_helps(space):
    objective = bowl(space, AT)
    near = np.array(AT) + 0.2 * np.random.default_rng(0).normal(size=(12, 4))
    embeddings = space.decode(near)
    values = np.array([objective(row) for row in embeddings])
    run = optimizer(space, corpus=(embeddings, values), mode="full", trials=6, initial=2)
    assert run.optimize(objective, progress=False).value < 0.5 * values.min() + 1e-3
    with pytest.raises(ValueError, match="as many finite values"):
        optimizer(space, corpus=(embeddings, values[:3]))


@pytest.mark.parametrize("surrogate", ["matern", "saas", "linear"])
def test_every_surrogate_proposes(space, surrogate):
    run = optimizer(space, surrogate=surrogate, trials=10, initial=8)
    run.optimize(bowl(space, AT), progress=False)
    assert sum(trial.origin == "model" for trial in run.trials) >= 2


def test_proposals_stay_where_they_are_told_to(space):
    run = optimizer(space, typical_set=0.5, trials=8, budgets=[5, 3], initial=4)
    run.optimize(lambda x: -float((x**2).sum()), progress=False)  # outwards
    for trial in run.trials:
        if trial.origin == "model":
            most = math.sqrt(chi2.ppf(0.5, trial.active_dim))
            assert np.linalg.norm(trial.coordinates) <= most + 1e-6
    free = optimizer(space, trials=8, budgets=[5, 3], initial=4)
    free.optimize(lambda x: -float((x**2).sum()), progress=False)
    guided = optimizer(space, trials=8, budgets=[5, 3], initial=4, prior_weight=50.0)
    guided.optimize(lambda x: -float((x**2).sum()), progress=False)

    def far(run):
        return np.mean([np.linalg.norm(t.coordinates) for t in run.trials if t.origin == "model"])

    assert far(guided) < 0.8 * far(free)


def test_an_executor_evaluates_batches(space):
    run = optimizer(space, trials=9)
    with ThreadPoolExecutor(2) as pool:
        run.optimize(bowl(space, AT), q=3, executor=pool, progress=False)
    alone = optimizer(space, trials=9)
    alone.optimize(bowl(space, AT), q=3, progress=False)
    assert [trial.value for trial in run.trials] == [trial.value for trial in alone.trials]


def test_noise_that_is_known_or_not(space):
    rng, objective = np.random.default_rng(0), bowl(space, AT)
    run = optimizer(space, trials=12, noisy=True)
    while len(run.completed) < 12:
        for trial in run.ask(2):
            run.tell(trial, objective(trial.embedding) + 0.3 * rng.normal(), variance=0.09)
    assert objective(run.best.embedding) < 0.5 * objective(run.trials[0].embedding)


def test_stages_end_early_where_nothing_gets_better(space):
    run = optimizer(space, trials=12, budgets=[9, 3], stage_patience=3, initial=4)
    run.optimize(lambda x: 1.0, progress=False)
    assert [trial.stage for trial in run.trials].count(0) == 4 and len(run.trials) == 12


def test_budgets():
    assert tuple(s.budget for s in plan_stages(list(range(16, 129, 16)), "nested", 225)) == ORIGINAL_BUDGETS
    assert [(s.start, s.end) for s in plan_stages([2, 4, 6], "frozen", 9)] == [(0, 2), (2, 4), (4, 6)]
    assert [(s.start, s.end) for s in plan_stages([2, 4, 6], "nested", 9)] == [(0, 2), (0, 4), (0, 6)]
    assert [(s.start, s.end, s.budget) for s in plan_stages([2, 4, 6], "full", 9)] == [(0, 6, 9)]
    assert sum(s.budget for s in plan_stages([1, 2, 3], "nested", 4)) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 1}, "1 trials are fewer than the 2 stages"),
        ({"trials": 0}, "trials must be at least 1"),
        ({"mode": "random"}, "mode 'random' does not exist; choose one of nested, frozen, full"),
        ({"budgets": [3, 3]}, r"must hold 2 positive numbers \(one a stage\) that add up to 16"),
        (
            {"surrogate": "tree"},
            "surrogate 'tree' does not exist; choose one of rbf, matern, saas, linear, embeddings, texts",
        ),
        ({"initial": 1}, "initial must be at least 2"),
        ({"typical_set": 1.0}, "typical_set must be between 0 and 1"),
        ({"prior_weight": -1}, "prior_weight must not be negative"),
        ({"reopen": True}, "reopen is about blocks that are frozen"),
        ({"stage_patience": 0}, "stage_patience must be at least 1"),
    ],
)
def test_bad_options_are_refused(space, options, message):
    with pytest.raises(ValueError, match=message):
        optimizer(space, **options)
    with pytest.raises(ValueError, match="bound must be above 0, or the box is empty"):
        make_space(bound=0)
    with pytest.raises(ValueError, match="q must be at least 1"):
        optimizer(space).ask(0)


def test_the_state_is_readable(space, tmp_path):
    run = optimizer(space, trials=6, initial=3, folder=tmp_path)
    run.optimize(bowl(space, AT), progress=False)
    state = json.loads((tmp_path / "state.json").read_text())
    assert len(state["trials"]) == 6 and state["settings"]["mode"] == "nested"


def test_dead_workers_are_replaced_and_their_trials_evaluated_again(space, tmp_path):
    """A worker that dies takes its pool with it: the others' trials are evaluated in a new one."""
    objective, mark = bowl(space, AT), tmp_path / "died"

    def dies_once(embedding):
        if not mark.exists():
            mark.touch()
            os._exit(1)
        return objective(embedding)

    def dies_at_the_start(embedding):
        if abs(embedding - start).max() < 1e-6:
            os._exit(1)
        return objective(embedding)

    def pool():
        return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))

    global WORK
    WORK = dies_once
    run = optimizer(space, trials=4, initial=4, budgets=[3, 1], folder=tmp_path / "once")
    run.optimize(work, q=2, executor=pool, progress=False)
    assert [trial.status for trial in run.trials] == ["complete"] * 4
    # One that always kills its worker has failed in the end; the others have their values.
    start, WORK = run.trials[0].embedding, dies_at_the_start
    run = optimizer(space, trials=4, initial=4, budgets=[3, 1])
    run.optimize(work, q=2, executor=pool, max_retries=1, progress=False)
    assert [trial.status for trial in run.trials] == ["failed", "complete", "complete", "complete"]
    assert run.trials[0].reason == "its worker died"
    # A pool that cannot be made anew: its trials stay open, and a later call evaluates them.
    run = optimizer(space, trials=4, initial=4, budgets=[3, 1])
    with pytest.raises(BrokenExecutor), pool() as own:
        run.optimize(work, q=2, executor=own, progress=False)
    assert [trial.status for trial in run.trials] == ["pending", "pending"]
    run.optimize(objective, progress=False)
    assert len(run.completed) == 4


WORK = None


def work(embedding):
    """What a forked worker finds by its name."""
    return WORK(embedding)
