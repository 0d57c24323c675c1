"""Which output dimensions a step has: the curricula as tables by step."""

import pytest

from hf_matryoshka.trainers.dim_curriculum import checked_dim_weights, dim_factors
from hf_matryoshka.trainers.mamba_arguments import MambaTrainingArguments


DIMS = [8, 16, 32, 64]


def arguments(**settings):
    return MambaTrainingArguments(output_dir="unused", report_to="none", use_cpu=True, **settings)


def table(steps, max_steps=80, **settings):
    args = arguments(**settings)
    return {step: dim_factors(step, max_steps, DIMS, args) for step in steps}


def test_joint_has_all_dimensions_always():
    found = table(range(0, 81, 10))
    assert all(factors == dict.fromkeys(DIMS, 1.0) for factors in found.values())


def test_bottom_up_adds_the_next_larger_one_at_equal_parts_and_warms_it_up():
    # Half of 80 steps in four parts of 10, the first 4 steps of each a warm-up.
    found = table(range(80), dim_curriculum="bottom_up", curriculum_warmup=0.4)
    assert found[0] == found[9] == {8: 1.0}
    assert [found[step][16] for step in range(10, 16)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert found[19] == {8: 1.0, 16: 1.0}
    assert found[20] == {8: 1.0, 16: 1.0, 32: 0.25}
    assert found[30] == {8: 1.0, 16: 1.0, 32: 1.0, 64: 0.25}
    assert found[33] == found[79] == dict.fromkeys(DIMS, 1.0)


def test_top_down_is_the_same_from_the_other_end():
    up, down = (table(range(80), dim_curriculum=kind) for kind in ("bottom_up", "top_down"))
    mirrored = dict(zip(DIMS, DIMS[::-1], strict=True))
    for step in range(80):
        assert down[step] == {mirrored[dim]: factor for dim, factor in up[step].items()}
        assert list(down[step]) == sorted(down[step])
    assert list(down[0]) == [64] and list(down[10]) == [32, 64]


def test_fraction_and_warmup_move_the_switches():
    found = table(range(80), dim_curriculum="bottom_up", curriculum_fraction=1.0, curriculum_warmup=0.0)
    assert [min(step for step in range(80) if dim in found[step]) for dim in DIMS] == [0, 20, 40, 60]
    assert {factor for factors in found.values() for factor in factors.values()} == {1.0}
    # A training shorter than the list of dimensions still ends with all of them.
    short = table(range(3), max_steps=3, dim_curriculum="bottom_up")
    assert list(short[0]) == [8] and short[2] == dict.fromkeys(DIMS, 1.0)
    assert dim_factors(0, 0, DIMS, arguments(dim_curriculum="bottom_up")) == {8: 1.0}


def test_sandwich_has_both_ends_and_draws_between_by_seed_and_step():
    dims = [8, 16, 24, 32, 48, 64]

    def drawn(steps, **settings):
        args = arguments(dim_curriculum="sandwich", **settings)
        return [list(dim_factors(step, 80, dims, args)) for step in steps]

    found = drawn(range(60))
    assert all(row == sorted(row) and {8, 64} <= set(row) and len(row) == 4 for row in found)
    assert {dim for row in found for dim in row} == set(dims)
    assert drawn(reversed(range(60)))[::-1] == found != drawn(range(60), seed=1)
    assert drawn(range(3), dims_per_step=9) == [dims] * 3
    assert {len(row) for row in drawn(range(9), dims_per_step=1)} == {3}
    assert list(dim_factors(0, 80, [8], arguments(dim_curriculum="sandwich"))) == [8]


def test_weights_are_one_positive_number_a_dimension():
    assert checked_dim_weights(DIMS, arguments()) == dict.fromkeys(DIMS, 1.0)
    assert checked_dim_weights([8, 16], arguments(dim_weights=[2.0, 0.5])) == {8: 2.0, 16: 0.5}
    for weights in ([1.0], [1.0, 1.0, 1.0, 0.0]):
        with pytest.raises(ValueError, match="dim_weights must hold 4 positive numbers"):
            checked_dim_weights(DIMS, arguments(dim_weights=weights))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim_curriculum": "up"}, "'up' does not exist; choose one of joint, bottom_up, top_down, sandwich"),
        ({"curriculum_fraction": 0.0}, r"curriculum_fraction must be in \(0, 1\], but is 0.0"),
        ({"curriculum_warmup": 1.5}, r"curriculum_warmup must be in \[0, 1\], but is 1.5"),
        ({"dims_per_step": 0}, "dims_per_step must be at least 1"),
        ({"gradient_conflict_steps": -1}, "gradient_conflict_steps must be at least 0"),
        ({"temperature": 0.0}, "temperature must be positive, but is 0.0"),
        ({"contrastive_temperature": -1.0}, "contrastive_temperature must be positive"),
        ({"mse_weight": -1.0}, "must not be negative, and one of the first four must be positive"),
    ],
)
def test_bad_arguments_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        arguments(**settings)


def test_consistency_alone_has_nothing_to_agree_with():
    weights = dict.fromkeys(("contrastive_weight", "mse_weight", "cosine_weight", "relational_weight"), 0.0)
    with pytest.raises(ValueError, match="one of the first four must be positive"):
        arguments(**weights)
