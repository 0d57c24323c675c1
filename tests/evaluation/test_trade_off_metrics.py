import pytest

from hf_matryoshka.evaluation.metrics import autc, monotonicity_violations


def test_autc_of_a_constant_is_that_constant_and_of_a_log_line_its_middle():
    assert autc([16, 64, 1024], [0.4, 0.4, 0.4]) == pytest.approx(0.4)
    assert autc([16, 64, 256], [0.2, 0.4, 0.6]) == pytest.approx(0.4)


def test_autc_weighs_by_log_cost_and_ignores_order_and_unit():
    # Log steps of 1 and 3: 0.25 * 0.25 + 0.75 * 0.75
    assert autc([2, 4, 32], [0.0, 0.5, 1.0]) == pytest.approx(0.625)
    assert autc([3200, 200, 400], [1.0, 0.0, 0.5]) == pytest.approx(0.625)


@pytest.mark.parametrize("costs", [[16], [16, 16], [0, 16]])
def test_autc_needs_two_positive_costs(costs):
    with pytest.raises(ValueError, match="two different, positive costs"):
        autc(costs, [0.5] * len(costs))


def test_violations_are_all_pairs_whose_larger_level_is_worse():
    assert monotonicity_violations([0.1, 0.3, 0.2, 0.25]) == [(1, 2), (1, 3)]
    assert monotonicity_violations([0.1, 0.3, 0.2, 0.25], tolerance=0.06) == [(1, 2)]
    assert monotonicity_violations([0.1, 0.1]) == []
    with pytest.raises(ValueError, match="negative"):
        monotonicity_violations([0.1], tolerance=-1)
