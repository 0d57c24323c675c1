"""Curves whose levels are budgets: no widths, and not all of them comparable."""

import numpy as np
import pytest

from hf_matryoshka.evaluation.autc_difference import autc_difference
from hf_matryoshka.evaluation.bootstrap import bootstrap_mean
from hf_matryoshka.evaluation.curve import Curve, LevelPoint
from hf_matryoshka.evaluation.plot import plot_curves
from hf_matryoshka.evaluation.table import format_table


# Half the width of all layers, all the width of half of them: neither is inside the other.
INSIDE = {"small": (), "thin": ("small",), "short": ("small",), "full": ("small", "thin", "short")}
MACS = {"small": 100, "thin": 200, "short": 220, "full": 400}
WEIGHTS = np.random.default_rng(1).integers(1, 9, size=60).astype(float)


def make(qualities, system="ours", noise=0.02, **kwargs):
    rng = np.random.default_rng(len(system))
    points = []
    for level, quality in zip(INSIDE, qualities, strict=True):
        values = quality + noise * rng.normal(size=60)
        values += quality - np.average(values, weights=WEIGHTS)
        mean, low, high = bootstrap_mean(values, resamples=200, weights=WEIGHTS)
        cost = {"macs": MACS[level], "bytes_per_vector": 128, "latency_ms": MACS[level] / 100}
        points.append(LevelPoint(level, None, mean, low, high, cost, values, WEIGHTS, INSIDE[level]))
    return Curve(points, "negative_nll", "validation", system, **kwargs)


def test_only_comparable_pairs_can_be_violations():
    curve = make([-3.0, -2.0, -2.5, -2.2])
    assert curve.comparable_pairs() == [
        ("small", "thin"),
        ("small", "short"),
        ("small", "full"),
        ("thin", "full"),
        ("short", "full"),
    ]
    # "short" is worse than "thin", but not larger.
    (found,) = curve.violations()
    assert (found.smaller, found.larger) == ("thin", "full")
    assert found.difference == pytest.approx(-0.2)
    assert found.low < -0.2 < found.high < 0 and found.significant
    (noise,) = make([-3.0, -2.0, -2.5, -2.001]).violations()
    assert noise.low < 0 < noise.high and not noise.significant


def test_intervals_of_pairs_weigh_the_rows():
    curve = make([-3.0, -2.0, -2.5, -2.2])
    expected = bootstrap_mean(curve["full"].per_query - curve["thin"].per_query, weights=WEIGHTS)
    assert curve["full"].minus(curve["thin"]) == expected
    other = LevelPoint("thin", None, 0.0, per_query=curve["thin"].per_query, weights=WEIGHTS + 1)
    with pytest.raises(ValueError, match="same rows, but those of full and thin have other weights"):
        curve["full"].minus(other)


def test_the_area_is_under_the_envelope_over_macs():
    curve = make([-3.0, -2.0, -2.5, -1.5])
    assert curve.autc() == pytest.approx((-2.5 - 1.75) / 2)  # without "short", which costs more than "thin"
    assert curve.autc() == pytest.approx(curve.autc("latency_ms"))
    assert curve.autc(envelope=False) < curve.autc()


def test_areas_compare_with_an_interval():
    ours, other = make([-3.0, -2.0, -2.5, -1.5]), make([-3.1, -2.1, -2.6, -1.6], "independent")
    difference, low, high = autc_difference(ours, other)
    assert difference == pytest.approx(ours.autc() - other.autc()) == pytest.approx(0.1)
    assert 0 < low < difference < high
    assert high - low < 0.02
    assert autc_difference(ours, make([-3.0, -2.0, -2.5, -1.5]))[0] == 0
    for point in other.points:
        object.__setattr__(point, "per_query", None)
    assert autc_difference(ours, other)[1:] == (None, None)


def test_areas_that_do_not_compare_are_refused():
    ours, other = make([-3.0, -2.0, -2.5, -1.5]), make([-3.1, -2.1, -2.1, -1.6], "other")
    other.split = "test"
    with pytest.raises(ValueError, match="other has negative_nll on test and ours"):
        autc_difference(ours, other)
    short = Curve(other.points[1:], "negative_nll", "validation", "other")
    with pytest.raises(ValueError, match="same range of macs only, but they are 100 to 400 and 200 to 400"):
        autc_difference(ours, short)
    other = make([-3.1, -2.1, -2.1, -1.6], "other")
    object.__setattr__(other.points[1], "weights", WEIGHTS[::-1])
    with pytest.raises(ValueError, match="not scored on the same rows"):
        autc_difference(ours, other)


def test_json_and_subsets_keep_budgets(tmp_path):
    curve = make([-3.0, -2.0, -2.5, -2.2], baselines={"independent": make([-3.1, -2.1, -2.4, -2], "independent")})
    curve.to_json(tmp_path / "curve.json")
    again = Curve.from_json(tmp_path / "curve.json")
    assert again.rows() == curve.rows()
    assert again.violations() == curve.violations()
    assert again.comparable_pairs() == curve.comparable_pairs()
    assert again["full"].contains == INSIDE["full"]
    np.testing.assert_array_equal(again["thin"].weights, WEIGHTS)
    part = curve.subset(np.arange(30), "half")
    values, weights = curve["thin"].per_query[:30], WEIGHTS[:30]
    assert part["thin"].quality == pytest.approx(np.average(values, weights=weights))
    assert part.comparable_pairs() == curve.comparable_pairs()
    np.testing.assert_array_equal(part["thin"].weights, weights)


def test_budgets_are_listed_in_an_order_that_they_have():
    points = make([-3.0, -2.0, -2.5, -2.2]).points
    with pytest.raises(ValueError, match="level thin is inside full, so it must be listed before it"):
        Curve([points[0], points[3], points[1]], "negative_nll", "validation", "ours")
    with pytest.raises(ValueError, match="names of their own, but are small, small"):
        Curve([points[0], points[0]], "negative_nll", "validation", "ours")
    with pytest.raises(ValueError, match="have a dim or none has, but small has none"):
        Curve([points[0], LevelPoint("d8", 8, 0.5)], "negative_nll", "validation", "ours")


def test_selection_takes_negative_qualities_and_the_listed_order():
    curve = make([-3.0, -2.0, -2.0, -1.9])
    assert curve.select(min_quality=0.95) == "thin"  # 1.9 / 2
    assert curve.select(min_quality=0.96) == "full"
    assert curve.select(min_quality=0.6) == "small"
    assert curve.select(max_latency_ms=2.1) == "thin"
    with pytest.raises(ValueError, match="the closest is small with 0.6333"):
        curve.select(min_quality=0.95, max_latency_ms=1)


def test_the_table_has_a_column_a_level():
    curve = make([-3.0, -2.0, -2.5, -2.2])
    other = make([-3.1, -2.1, -2.1, -2.2], "svd")
    lines = format_table([curve, other], intervals=False).splitlines()
    assert lines[0] == "negative_nll, split validation, by level"
    assert lines[1].split() == ["system", *INSIDE]
    assert lines[3].split() == ["ours", "-3.000*", "-2.000*", "-2.500", "-2.200"]


def test_the_plot_has_the_cost_that_it_is_asked_for(tmp_path):
    curve = make([-3.0, -2.0, -2.5, -1.5])
    costs = [None, "macs", "latency_ms"]
    pictures = [plot_curves([curve], tmp_path / f"{cost}.png", cost=cost).read_bytes() for cost in costs]
    assert pictures[0] == pictures[1] != pictures[2]
    with pytest.raises(ValueError, match="level small has no cost 'seconds'"):
        plot_curves([curve], tmp_path / "none.png", cost="seconds")
    assert not (tmp_path / "none.png").exists()


def test_the_plot_has_levels_beside_the_line(tmp_path):
    def picture(name, beside):
        # So many levels have no names in the picture.
        qualities = [-3 + 0.1 * number for number in range(13)]
        qualities[6] = beside
        points = [LevelPoint(f"b{n}", None, value, cost={"macs": 2**n}) for n, value in enumerate(qualities)]
        curve = Curve(points, "negative_nll", "validation", "ours")
        return plot_curves([curve], tmp_path / name).read_bytes()

    assert picture("a.png", -2.8) != picture("b.png", -2.7)
