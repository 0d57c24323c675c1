import numpy as np
import pytest

from hf_matryoshka.evaluation.curve import Curve, LevelPoint, with_baselines
from hf_matryoshka.evaluation.table import format_table


RNG = np.random.default_rng(0)
DIFFICULTY = RNG.uniform(0, 0.2, size=300)


def _curve(system, qualities, split="test", values=True, noise=0.05, **kwargs):
    points = []
    for dim, quality in qualities.items():
        per_query = quality + (DIFFICULTY - DIFFICULTY.mean()) + noise * RNG.normal(size=300) if values else None
        points.append(LevelPoint(f"d{dim}", dim, quality, quality - 0.01, quality + 0.01, {}, per_query))
    return Curve(points, "ndcg_at_10", split, system, **kwargs)


def _cells(table, system):
    return next(line for line in table.splitlines() if line.startswith(system)).split()[1:]


def test_the_best_is_marked_only_where_the_paired_interval_excludes_0():
    curves = [
        _curve("ours", {16: 0.400, 32: 0.501, 64: 0.55}),
        _curve("svd", {16: 0.300, 32: 0.500, 64: 0.60}),
        _curve("truncation", {16: 0.200, 32: 0.400, 64: 0.50}),
    ]
    table = format_table(curves, intervals=False)
    # 16: a clear win; 32: inside the noise; 64: a baseline wins, against the other baseline
    assert _cells(table, "ours") == [".400*", ".501", ".550"]
    assert _cells(table, "svd") == [".300", ".500", ".600*"]
    assert _cells(table, "truncation") == [".200", ".400", ".500"]
    assert table.splitlines()[0] == "ndcg_at_10, split test, by dimensions"
    assert "excludes 0" in table


def test_a_rival_of_ours_is_no_baseline():
    curves = [_curve("ours_a", {16: 0.401}), _curve("ours_b", {16: 0.400}), _curve("svd", {16: 0.3})]
    assert _cells(format_table(curves, intervals=False), "ours_a") == [".401*"]
    assert "*" not in format_table(curves[:2])


def test_nothing_is_marked_without_values():
    table = format_table([_curve("ours", {16: 0.9}, values=False), _curve("svd", {16: 0.1}, values=False)])
    assert "*" not in table


def test_intervals_and_missing_widths_are_shown():
    table = format_table([_curve("ours", {16: 0.4, 64: 0.6}), _curve("svd", {64: 0.61})])
    assert ".400" in table and "[.390, .410]" in table
    assert _cells(table, "svd")[0] == "-"
    assert "[" not in format_table([_curve("ours", {16: 0.4})], intervals=False)


def test_columns_line_up():
    table = format_table([_curve("ours", {16: 0.4, 64: 1.0}), _curve("truncation", {16: 0.04, 64: 0.6})])
    lines = table.splitlines()[1:5]
    starts = [line.index(text) for line, text in zip(lines, ["64", "-", "1.000", ".600"], strict=True)]
    assert starts[0] == starts[2] == starts[3]


def test_baselines_of_a_curve_come_along_once():
    svd = _curve("svd", {16: 0.3})
    ours = [_curve(name, {16: 0.4}, baselines={"svd": svd}) for name in ("a", "b")]
    assert [curve.system for curve in with_baselines(ours)] == ["a", "b", "svd"]


def test_other_splits_and_nothing_are_refused():
    with pytest.raises(ValueError, match="svd has ndcg_at_10 on test_unseen and ours has ndcg_at_10 on test"):
        format_table([_curve("ours", {16: 0.4}), _curve("svd", {16: 0.4}, split="test_unseen")])
    with pytest.raises(ValueError, match="no curve to show"):
        format_table([])
