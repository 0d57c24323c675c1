import pytest

from hf_matryoshka.evaluation.curve import Curve, LevelPoint


@pytest.fixture
def curve():
    points = [
        LevelPoint(f"d{dim}", dim, quality, cost={"bytes_per_vector": 4 * dim, "latency_ms": latency})
        for dim, quality, latency in [(16, 0.30, 1.0), (64, 0.58, 2.0), (128, 0.66, 4.0), (384, 0.64, 8.0)]
    ]
    return Curve(points, "ndcg_at_10", "test", "ours")


def test_min_quality_is_a_share_of_the_largest_level(curve):
    # 0.58 / 0.64 = 0.906: absolute reading would find nothing
    assert curve.select(min_quality=0.9) == "d64"
    assert curve.select(min_quality=0.95) == "d128"
    assert curve.select(min_quality=0.4) == "d16"


def test_the_smallest_level_that_meets_every_demand(curve):
    assert curve.select(min_quality=0.9, max_latency_ms=5) == "d64"
    assert curve.select(min_quality=0.95, max_memory_mb=600, num_vectors=10**6) == "d128"


def test_limits_on_cost_alone_give_the_best_level_within_them(curve):
    assert curve.select(max_latency_ms=2.5) == "d64"
    assert curve.select(max_memory_mb=10**6, num_vectors=10**6) == "d128"
    # 10^6 vectors of 256 bytes are exactly 256 MB
    assert curve.select(max_memory_mb=256, num_vectors=10**6) == "d64"
    assert curve.select(max_memory_mb=255.9, num_vectors=10**6) == "d16"


def test_memory_that_is_in_the_costs_needs_no_count():
    points = [LevelPoint(f"d{dim}", dim, dim / 100, cost={"memory_mb": dim}) for dim in (8, 16)]
    assert Curve(points, "ndcg_at_10", "test", "ours").select(max_memory_mb=10) == "d8"


def test_what_cannot_be_met_says_what_can(curve):
    with pytest.raises(ValueError, match=r"no level meets max_latency_ms=0.5; the closest is d16 with 1$"):
        curve.select(max_latency_ms=0.5)
    with pytest.raises(ValueError, match=r"min_quality=0.95 .* and the other limits; the closest is d64 with 0.9062"):
        curve.select(min_quality=0.95, max_latency_ms=2)
    with pytest.raises(ValueError, match=r"min_quality=95 \(a share of the largest level's quality 0.64\)"):
        curve.select(min_quality=95)


def test_missing_costs_and_demands_are_named(curve):
    with pytest.raises(ValueError, match="say what the level must meet"):
        curve.select()
    with pytest.raises(ValueError, match="no cost 'memory_mb': give num_vectors"):
        curve.select(max_memory_mb=10)
    with pytest.raises(ValueError, match="num_vectors must be positive"):
        curve.select(max_memory_mb=10, num_vectors=0)
    points = [LevelPoint("d8", 8, 0.5, cost={"bytes_per_vector": 32})]
    with pytest.raises(ValueError, match="level d8 has no cost 'latency_ms': measure it"):
        Curve(points, "ndcg_at_10", "test", "ours").select(max_latency_ms=1)
