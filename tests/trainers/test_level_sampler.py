import pytest

from hf_matryoshka.trainers.level_sampler import LevelSampler
from hf_matryoshka.trainers.matryoshka_arguments import MatryoshkaTrainingArguments


def sampler(num_levels=5, **arguments):
    return LevelSampler(num_levels, MatryoshkaTrainingArguments(use_cpu=True, **arguments))


def test_all_runs_every_level():
    assert sampler().sample(0, 0.0) == [0, 1, 2, 3, 4]


def test_sandwich_always_has_both_ends():
    draws = [sampler(level_sampling="sandwich", levels_per_step=1).sample(step, 0.0) for step in range(40)]
    assert all(draw[0] == 0 and draw[-1] == 4 and len(draw) == 3 for draw in draws)
    assert {draw[1] for draw in draws} == {1, 2, 3}


def test_random_reaches_every_level_and_depends_on_seed_and_step_only():
    draws = [sampler(level_sampling="random", levels_per_step=2).sample(step, 0.0) for step in range(60)]
    assert {level for draw in draws for level in draw} == {0, 1, 2, 3, 4}
    assert draws == [sampler(level_sampling="random", levels_per_step=2).sample(step, 0.0) for step in range(60)]
    assert draws != [sampler(level_sampling="random", seed=1).sample(step, 0.0) for step in range(60)]


def test_schedules_let_levels_in_one_after_the_other():
    ascending = sampler(level_schedule="ascending", level_schedule_fraction=0.5)
    assert [list(ascending.active(p)) for p in (0.0, 0.25, 0.5, 1.0)] == [[0], [0, 1, 2], [*range(5)], [*range(5)]]
    descending = sampler(level_schedule="descending", level_schedule_fraction=0.5)
    assert [list(descending.active(p)) for p in (0.0, 0.25, 0.5)] == [[4], [2, 3, 4], [*range(5)]]


@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0, -1.0, 1.0, 1.0], [0.0] * 5])
def test_bad_weights_are_refused(weights):
    with pytest.raises(ValueError, match="level_weights must hold 5 numbers"):
        sampler(level_weights=weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level_sampling": "some"}, "choose one of all, sandwich, random"),
        ({"level_schedule": "up"}, "choose one of constant, ascending, descending"),
        ({"levels_per_step": 0}, "levels_per_step must be at least 1"),
        ({"level_schedule_fraction": 0.0}, "level_schedule_fraction must be in"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MatryoshkaTrainingArguments(use_cpu=True, **arguments)


def test_probabilities_decide_how_often_a_level_is_drawn():
    settings = {"level_probabilities": [1.0, 1.0, 6.0, 1.0, 1.0], "levels_per_step": 1}
    draws = [sampler(level_sampling="random", **settings).sample(step, 0.0) for step in range(300)]
    assert 150 < sum(draw == [2] for draw in draws) < 210
    assert {level for draw in draws for level in draw} == {0, 1, 2, 3, 4}
    between = [sampler(level_sampling="sandwich", **settings).sample(step, 0.0)[1] for step in range(100)]
    assert between.count(2) > 60


def test_no_level_is_drawn_twice_in_a_step():
    settings = {"level_probabilities": [1.0, 1.0, 90.0, 1.0, 1.0], "levels_per_step": 3}
    assert all(len(set(sampler(level_sampling="random", **settings).sample(step, 0.0))) == 3 for step in range(50))


@pytest.mark.parametrize("probabilities", [[1.0], [1.0, 0.0, 1.0, 1.0, 1.0]])
def test_bad_probabilities_are_refused(probabilities):
    with pytest.raises(ValueError, match="level_probabilities must hold 5 positive numbers"):
        sampler(level_probabilities=probabilities)
