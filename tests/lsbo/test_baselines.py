"""The optimisers that the staged one is compared with, by their names."""

import numpy as np
import pytest

from hf_matryoshka.lsbo.optimizers import OPTIMIZERS, make_optimizer

from .lsbo_spaces import QUICK, bowl, make_space


AT = [1.0, -1.5, 0.5, 0.8]
OPTIONS = {
    "staged": {"initial": 5, "acquisition": QUICK},
    "gp": {"initial": 5, "acquisition": QUICK},
    "linear": {"initial": 5, "acquisition": QUICK},
    "turbo": {"initial": 5, "candidates": 200},
    "cmaes": {},
    "random": {},
}


@pytest.fixture(scope="module")
def space():
    return make_space()


@pytest.fixture(scope="module")
def pool(space):
    return space.decode(np.random.default_rng(0).normal(size=(60, 4)))


def make(name, space, pool, **options):
    own = {"pool": pool} if name == "pool" else OPTIONS[name]
    return make_optimizer(name, space, **{"maximize": False, "trials": 16, **own, **options})


# Of the value at the mean, where the search starts; a linear model only knows the direction of a bowl.
REACHED = {"gp": 0.3, "turbo": 0.3, "cmaes": 0.3, "linear": 0.9, "random": 0.9, "pool": 0.9}
TRIALS = {"cmaes": 80, "turbo": 22, "random": 16, "pool": 16}


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("name", list(REACHED))
def test_a_bowl_in_both_directions(space, pool, name, maximize):
    distance = bowl(space, AT)
    run = make(name, space, pool, maximize=maximize, trials=TRIALS.get(name, 10))
    best = run.optimize((lambda x: -distance(x)) if maximize else distance, q=2, progress=False)
    assert abs(best.value) < REACHED[name] * distance(space.decode(np.zeros((1, 4)))[0])
    rows = np.array([trial.coordinates for trial in run.trials])
    assert len(np.unique(rows, axis=0)) > len(rows) - 2 and np.abs(rows).max() <= 3
    assert all(trial.seconds >= 0 for trial in run.trials)
    # Where better values are, a search looks; the worse half of the box it leaves.
    if name in ("turbo", "cmaes"):
        values = [distance(trial.embedding) for trial in run.trials]
        assert np.mean(values[-8:]) < np.mean(values[:8])


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "staged"])
def test_a_resumed_run_makes_the_same_suggestions(space, pool, name, tmp_path):
    objective = bowl(space, AT)
    whole = make(name, space, pool, folder=tmp_path / "a")
    for _ in range(12 if name in ("cmaes", "random", "pool") else 8):
        # Anew for each trial, from what is on disk.
        resumed = make(name, space, pool, folder=tmp_path / "a")
        (mine,), (other,) = whole.ask(1), resumed.ask(1)
        np.testing.assert_array_equal(mine.coordinates, other.coordinates)
        np.testing.assert_allclose(mine.embedding, other.embedding, atol=1e-6)
        # One fails.
        whole.tell(mine, None if mine.id == 6 else objective(mine.embedding))
    assert [trial.status for trial in whole.trials].count("failed") == 1
    with pytest.raises(ValueError, match="holds a run with another seed"):
        make(name, space, pool, folder=tmp_path / "a", seed=1)


def test_the_pool_is_known_embeddings_each_once(space, pool):
    run = make("pool", space, pool, trials=60)
    run.optimize(bowl(space, AT), q=7, progress=False)
    found = np.array([trial.embedding for trial in run.trials])
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(pool, axis=0))
    assert not np.array_equal(found, pool) and run.ask(1) == []
    with pytest.raises(ValueError, match="the pool holds 60 embeddings, fewer than the 61 trials"):
        make("pool", space, pool, trials=61)
    with pytest.raises(ValueError, match=r"embeddings of shape \(n, 8\), but has the shape \(60, 3\)"):
        make("pool", space, pool[:, :3])


def test_cmaes_waits_for_its_generation(space, pool):
    run = make("cmaes", space, pool)
    first = run.ask(100)
    assert len(first) == 8 and run.ask(1) == []
    for trial in reversed(first):
        run.tell(trial, 1.0 + trial.id)
    assert len(run.ask(3)) == 3


def test_turbo_starts_again_where_its_box_has_shrunk_away(space, pool):
    run = make("turbo", space, pool, initial=2, candidates=20, trials=60)
    run.optimize(lambda x: 1.0, q=4, progress=False)
    stages = [trial.stage for trial in run.trials]
    assert stages == sorted(stages) and stages[-1] == 1
    second = [trial for trial in run.trials if trial.stage == 1]
    assert [trial.origin for trial in second[:3]] == ["random", "random", "model"]
    # Length 0.8 is halved every four failures in a row: seven times.
    assert len(run.trials) - len(second) == 2 + 4 * 7


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("anneal", {}, "optimizer 'anneal' does not exist; choose one of staged, gp, linear, turbo, cmaes"),
        ("random", {"mode": "full"}, "the optimizer 'random' has no option mode"),
        ("gp", {"surrogate": "saas"}, "the optimizer 'gp' has no option surrogate"),
        ("pool", {}, "needs a corpus"),
        ("turbo", {"initial": 1}, "initial must be at least 2"),
        ("turbo", {"candidates": 0}, "candidates must be at least 1"),
        ("cmaes", {"sigma": 0.0}, "sigma must be above 0"),
        ("random", {"trials": 0}, "trials must be at least 1"),
    ],
)
def test_bad_options_are_refused(space, name, options, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(name, space, maximize=True, **options)
