"""Means over seeds."""

import pytest
from scipy import stats

from hf_matryoshka.evaluation.seed_interval import seed_interval


def test_the_interval_is_that_of_the_t_test():
    values = [0.1, -0.2, 0.4, 0.3, 0.05]
    found = seed_interval(values)
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert found["value"] == pytest.approx(0.13) and found["seeds"] == 5
    wide = seed_interval(values, confidence=0.99)
    assert wide["low"] < low and wide["high"] > high


def test_few_and_equal_values():
    assert seed_interval([2.0]) == {"value": 2.0, "low": None, "high": None, "seeds": 1}
    assert seed_interval([2.0, 2.0]) == {"value": 2.0, "low": 2.0, "high": 2.0, "seeds": 2}
    with pytest.raises(ValueError, match="there are no values to take a mean of"):
        seed_interval([])
