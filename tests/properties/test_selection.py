"""A choice of a level meets every demand, and is the smallest or the best that does."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from hf_matryoshka.evaluation.curve import LevelPoint
from hf_matryoshka.evaluation.selection import quality_share, select_level


QUALITIES = st.floats(-2, 2) | st.sampled_from([0.0, 1.0])
COSTS = st.fixed_dictionaries(
    {}, optional={name: st.floats(0, 1e6) for name in ("latency_ms", "memory_mb", "bytes_per_vector")}
)
DEMANDS = st.none() | st.floats(-1, 1e6) | st.sampled_from([0.0, 0.5, 0.95, 1.0, math.nan, math.inf])


@settings(max_examples=300)
@given(
    rows=st.lists(st.tuples(QUALITIES, COSTS), min_size=1, max_size=5),
    min_quality=DEMANDS,
    max_latency_ms=DEMANDS,
    max_memory_mb=DEMANDS,
    num_vectors=st.none() | st.integers(-1, 10**6) | st.just(math.nan),
)
def test_a_chosen_level_meets_every_demand(rows, min_quality, max_latency_ms, max_memory_mb, num_vectors):
    points = [LevelPoint(f"d{i}", i + 1, quality, None, None, cost) for i, (quality, cost) in enumerate(rows)]
    try:
        name = select_level(points, min_quality, max_latency_ms, max_memory_mb, num_vectors)
    except ValueError as error:
        sentence = str(error)
        assert any(word in sentence for word in ("min_quality", "max_", "num_vectors", "has no cost")), sentence
        return

    def meets(point):
        cost = point.cost
        memory = None
        if max_memory_mb is not None:
            memory = cost["memory_mb"] if num_vectors is None else cost["bytes_per_vector"] * num_vectors / 1e6
        return (
            (min_quality is None or quality_share(point.quality, points[-1].quality) >= min_quality)
            and (max_latency_ms is None or cost["latency_ms"] <= max_latency_ms)
            and (max_memory_mb is None or memory <= max_memory_mb)
        )

    fitting = [point for point in points if meets(point)]
    chosen = next(point for point in points if point.level == name)
    assert chosen in fitting
    if min_quality is not None:
        assert chosen is fitting[0]
    else:
        assert chosen.quality == max(point.quality for point in fitting)
