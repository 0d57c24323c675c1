"""Whatever an optimisation of a latent is asked for: it is refused in a sentence that names the argument, or its first
candidates are in the box and what it writes down is JSON. Nothing is fitted."""

import functools
import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hf_matryoshka.lsbo.acquisition import AcquisitionOptions
from hf_matryoshka.lsbo.search_space import SearchSpace
from hf_matryoshka.lsbo.staged_lsbo import StagedLSBO
from hf_matryoshka.lsbo.surrogates import SURROGATES
from tests.lsbo.lsbo_spaces import make_space

from .systems import LISTS, NUMBERS
from .test_configs import ACCIDENT


WIDTH = 8
ODD = NUMBERS | LISTS | st.sampled_from([None, "", "x", "3", 10**400, b"", {}])
SMALL = st.integers(-1, 20)
SWITCH = st.booleans()
FLOATS = st.lists(st.floats() | st.integers(-(10**40), 10**40), min_size=1, max_size=WIDTH)
CORPUS = st.tuples(
    st.integers(0, 3).flatmap(
        lambda count: st.lists(
            st.lists(st.floats(), min_size=WIDTH, max_size=WIDTH) | FLOATS, min_size=count, max_size=count
        )
    ),
    st.lists(st.floats(), max_size=3),
)
OPTIONS = {
    "maximize": SWITCH,
    "trials": st.integers(-1, 300),
    "seed": st.integers(-2, 2**70),
    "mode": st.sampled_from(["nested", "frozen", "full", "Nested"]),
    "budgets": st.lists(st.integers(-1, 9), max_size=3) | st.just([4, 4]),
    "initial": SMALL,
    "surrogate": st.sampled_from([*SURROGATES, "embeddings", "texts", "tree"]),
    "stage_patience": SMALL,
    "reopen": SWITCH,
    "trust_region": SWITCH,
    "typical_set": st.floats(-0.5, 1.5),
    "prior_weight": st.floats(-1, 9),
    "noisy": SWITCH,
    "corpus": CORPUS,
}


@functools.cache
def small_space():
    return make_space(width=WIDTH)


def refused(error, names):
    sentence = str(error)
    assert any(name in sentence for name in names) and "\n" not in sentence, (sentence, names)
    assert not ACCIDENT.search(sentence), sentence


@st.composite
def options(draw):
    """A few options, each mostly of its type; what is left is valid."""
    names = draw(st.lists(st.sampled_from(sorted(OPTIONS)), min_size=1, max_size=3, unique=True))
    return {name: draw(OPTIONS[name] | OPTIONS[name] | OPTIONS[name] | ODD, label=name) for name in names}


@settings(max_examples=300)
@given(given=options(), q=SMALL | ODD)
@example({"prior_weight": float("nan")}, 1)
@example({"seed": -1}, 1)
@example({"trials": 2.5}, 1)
@example({"maximize": "min"}, 1)
@example({"corpus": ([[float("nan")] * WIDTH], [1.0])}, 1)
@example({"corpus": ([[1.0]], [1.0])}, 1)
def test_options(given, q):
    space = small_space()
    try:
        search = StagedLSBO(space, **{"maximize": True, "trials": 8} | given)
    except ValueError as error:
        refused(error, given)
        return
    json.dumps(search.settings(), allow_nan=False)
    try:
        trials = search.ask(q)
    except ValueError as error:
        refused(error, ["q"])
        assert type(q) is not int or q < 1
        return
    assert 1 <= len(trials) <= q and [trial.id for trial in trials] == list(range(len(trials)))
    for trial in trials:
        assert trial.coordinates.shape == (space.latent_dim,) and np.isfinite(trial.embedding).all()
        assert (abs(trial.coordinates) <= space.bound).all()


@settings(max_examples=60)
@given(bound=ODD | st.floats())
@example(float("inf"))
def test_bounds(bound):
    try:
        space = SearchSpace(small_space().funnel, bound=bound)
    except ValueError as error:
        refused(error, ["bound"])
        return
    assert np.isfinite(space.to_unit(np.zeros(1))).all() and 0 < space.bound < float("inf")


COUNTS = ("num_restarts", "raw_samples", "maxiter", "mc_samples")


@settings(max_examples=60)
@given(given=st.dictionaries(st.sampled_from(COUNTS), SMALL | ODD, min_size=1, max_size=2))
def test_how_hard_an_acquisition_is_maximised(given):
    try:
        found = AcquisitionOptions(**given)
    except ValueError as error:
        refused(error, given)
        return
    assert all(type(value) is int and value >= 1 for value in vars(found).values())


@settings(max_examples=120)
@given(trial=st.integers(-1, 3) | ODD, value=st.floats() | ODD, variance=st.none() | st.floats() | ODD)
@example(0, 10**400, None)
@example(0, 1.0, "x")
def test_values_that_are_told(trial, value, variance):
    search = StagedLSBO(small_space(), maximize=True, trials=8)
    asked = search.ask(2)
    try:
        search.tell(trial, value, variance)
    except ValueError as error:
        refused(error, ["trial", "objective", "variance"])
        assert not search.completed and all(own.status == "pending" for own in asked)
        return
    own = asked[trial]
    json.dumps(own.record(), allow_nan=False)
    with pytest.raises(ValueError, match="was told before"):
        search.tell(trial, 0.0)
