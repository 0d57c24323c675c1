import json

import numpy as np
import pytest

from hf_matryoshka.evaluation.bootstrap import bootstrap_mean
from hf_matryoshka.evaluation.curve import Curve, LevelPoint


def _curve(qualities, system="ours", noise=0.0, queries=200, **kwargs):
    """Levels d8, d16, ... whose per-query values are shared difficulty plus the level's own noise."""
    rng = np.random.default_rng(0)
    difficulty = rng.uniform(-0.2, 0.2, size=queries)
    difficulty -= difficulty.mean()
    points = []
    for number, quality in enumerate(qualities):
        own = noise * rng.normal(size=queries)
        values = quality + difficulty + own - own.mean()
        dim = 8 * 2**number
        mean, low, high = bootstrap_mean(values, resamples=200)
        points.append(LevelPoint(f"d{dim}", dim, mean, low, high, {"bytes_per_vector": 4 * dim}, values))
    return Curve(points, "ndcg_at_10", "test", system, **kwargs)


def test_autc_reads_the_cost_it_is_asked_for():
    curve = _curve([0.2, 0.4, 0.6])
    assert curve.autc() == pytest.approx(0.4)
    with pytest.raises(ValueError, match="level d8 has no cost 'latency_ms'; its costs are: bytes_per_vector"):
        curve.autc("latency_ms")


def test_violations_tell_noise_from_a_real_loss():
    (noise,) = _curve([0.3, 0.5, 0.499], noise=0.1).violations()
    assert (noise.smaller, noise.larger) == ("d16", "d32")
    assert noise.low < 0 < noise.high
    assert noise.significant is False
    (real,) = _curve([0.3, 0.5, 0.45], noise=0.1).violations()
    assert real.difference == pytest.approx(-0.05)
    assert real.low < real.difference < real.high < 0
    assert real.significant is True
    assert _curve([0.3, 0.4, 0.5]).violations() == []
    assert _curve([0.3, 0.5, 0.45]).violations(tolerance=0.1) == []


def test_violations_without_values_have_no_verdict():
    points = [LevelPoint("d8", 8, 0.5), LevelPoint("d16", 16, 0.4)]
    (violation,) = Curve(points, "v_measure", "test", "ours").violations()
    assert (violation.low, violation.high, violation.significant) == (None, None, None)


def test_json_keeps_everything_and_leaves_nothing_beside(tmp_path):
    curve = _curve([0.2, 0.4], baselines={"svd": _curve([0.1, 0.3], system="svd")})
    path = tmp_path / "curve.json"
    curve.to_json(path)
    again = Curve.from_json(path)
    assert [item.name for item in tmp_path.iterdir()] == ["curve.json"]
    assert again.rows() == curve.rows()
    assert list(again.baselines) == ["svd"]
    np.testing.assert_array_equal(again["d16"].per_query, curve["d16"].per_query)
    np.testing.assert_array_equal(again.baselines["svd"]["d8"].per_query, curve.baselines["svd"]["d8"].per_query)


def test_files_that_are_no_curve_are_refused(tmp_path):
    path = tmp_path / "other.json"
    for text in ("{}", "[1]", "{not json", json.dumps({"points": [{"per_query": None}]})):
        path.write_text(text)
        with pytest.raises(ValueError, match="other.json is no curve"):
            Curve.from_json(path)
    path.write_bytes(b"\x89PNG\xff")
    with pytest.raises(ValueError, match="other.json is no curve"):
        Curve.from_json(path)
    with pytest.raises(FileNotFoundError, match="^curve .*absent.json does not exist$"):
        Curve.from_json(tmp_path / "absent.json")


def test_rows_have_the_benchmark_keys():
    rows = _curve([0.2, 0.4], baselines={"svd": _curve([0.1, 0.3], system="svd")}).rows(seeds=3, model="minilm")
    assert [(row["system"], row["level"]) for row in rows] == [
        ("ours", "d8"),
        ("ours", "d16"),
        ("svd", "d8"),
        ("svd", "d16"),
    ]
    expected = {"system", "level", "split", "metric", "value", "low", "high", "seeds", "bytes_per_vector", "model"}
    assert set(rows[0]) == expected
    assert rows[0]["seeds"] == 3
    assert rows[0]["low"] < rows[0]["value"] < rows[0]["high"]
    json.dumps(rows)


def test_levels_must_grow():
    points = [LevelPoint("d16", 16, 0.5), LevelPoint("d8", 8, 0.4)]
    with pytest.raises(ValueError, match=r"smallest to the largest width, but are \[16, 8\]"):
        Curve(points, "ndcg_at_10", "test", "ours")
    with pytest.raises(ValueError, match="ours has no levels"):
        Curve([], "ndcg_at_10", "test", "ours")
    with pytest.raises(KeyError, match="'d9' does not exist; choose one of d8, d16"):
        _curve([0.1, 0.2])["d9"]
