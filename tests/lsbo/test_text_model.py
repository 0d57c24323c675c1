from functools import partial

import numpy as np
import pytest

from hf_matryoshka.lsbo.staged_lsbo import StagedLSBO
from hf_matryoshka.lsbo.text_model import TextModel

from .lsbo_spaces import QUICK, make_space


@pytest.fixture(scope="module")
def space():
    """Texts are the signs of the first coordinates and a number; each is encoded to a point of its own."""
    plain = make_space()

    def decode(embeddings):
        rows = plain.encode(embeddings).clip(-2, 2).round().astype(int)
        return [" ".join(map(str, row)) for row in rows]

    def encode(texts):
        return plain.decode(np.array([[float(word) for word in text.split()] for text in texts]))

    return make_space(decode_texts=decode, encode_texts=encode)


def distance(text):
    return -float(((np.array([float(word) for word in text.split()]) - [1, -2, 0, 1]) ** 2).sum())


def test_the_texts_that_promise_most_are_proposed(space):
    run = StagedLSBO(space, maximize=True, trials=16, initial=6, acquisition=QUICK)
    assert run.surrogate == "texts"
    best = run.optimize(distance, q=2, progress=False)
    assert best.value >= -1 and len({trial.text for trial in run.trials}) == len(run.trials)
    assert all(not trial.coordinates[2:].any() for trial in run.trials if trial.stage == 0)
    by = {kind: [trial.value for trial in run.trials if trial.origin == kind] for kind in ("random", "model")}
    assert np.mean(by["model"]) > np.mean(by["random"])


def test_a_text_is_encoded_once(space):
    calls = []
    counting = make_space(
        decode_texts=space.decode_texts,
        encode_texts=lambda texts: calls.append(list(texts)) or space.encode_texts(texts),
    )
    model = TextModel(counting)
    first = model.features(["1 0 0 0", "0 1 0 0", "1 0 0 0"])
    assert np.array_equal(first[0], first[2]) and calls == [["1 0 0 0", "0 1 0 0"]]
    np.testing.assert_allclose(first, [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]], atol=1e-4)
    model.features(["0 1 0 0"])
    assert len(calls) == 1 and model.features([]).shape == (0, 4)


def test_texts_are_needed():
    with pytest.raises(ValueError, match="needs a search space with decode_texts and encode_texts"):
        StagedLSBO(make_space(), maximize=True, trials=8, surrogate="texts")


def test_texts_are_modelled_where_they_can_be(space):
    make = partial(StagedLSBO, maximize=True, trials=8)
    assert make(space).surrogate == "texts" and make(make_space()).surrogate == "embeddings"
    assert make(space, noisy=True).surrogate == "embeddings" and make(space, surrogate="rbf").surrogate == "rbf"
    with pytest.raises(ValueError, match="a model of texts has no trust_region; leave it out or choose another"):
        make(space, surrogate="texts", trust_region=True)


def test_coordinates_do_not_depend_on_what_is_encoded_beside_them():
    space = make_space(dims=(16, 128), width=384)
    rows = np.random.default_rng(1).normal(size=(150, 384))
    whole = space.encode(rows)
    groups = [rows[:1], rows[1:4], rows[4:140], rows[140:]]
    assert np.array_equal(np.concatenate([space.encode(part) for part in groups]), whole)
    assert space.encode(rows[:0]).shape == (0, 128)
