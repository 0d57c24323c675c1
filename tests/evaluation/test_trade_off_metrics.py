import pytest

from hf_matryoshka.evaluation.metrics import autc, monotonicity_violations, pareto_envelope


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


def test_only_levels_that_no_cheaper_one_equals_are_on_the_envelope():
    costs, qualities = [4, 1, 2, 4, 8, 16], [0.5, 0.1, 0.6, 0.7, 0.7, 0.2]
    assert pareto_envelope(costs, qualities) == [1, 2, 3]
    # Through (0, 0.1), (1/4, 0.6) and (1/2, 0.7), and from there at 0.7 up to the largest cost.
    assert autc(costs, qualities, envelope=True) == pytest.approx((0.35 + 0.65 + 2 * 0.7) / 4)
    kept = [index for index in range(6) if index not in (0, 4)]
    chosen = ([costs[index] for index in kept], [qualities[index] for index in kept])
    assert autc(*chosen, envelope=True) == pytest.approx(autc(costs, qualities, envelope=True))
    assert autc(costs, qualities) < autc(costs, qualities, envelope=True)
    assert autc([16, 64, 256], [0.2, 0.4, 0.6], envelope=True) == pytest.approx(0.4)
