import numpy as np
import pytest

from hf_matryoshka.evaluation.calibration import CalibrationBins, expected_calibration_error


def test_the_error_is_that_of_a_case_by_hand():
    # Bins of 1/15. 0.90 and 0.92 share one, with one of two right; 0.50 and 0.53 another, both right; 0.1 is alone.
    confidence = np.array([0.90, 0.92, 0.50, 0.53, 0.10])
    correct = np.array([True, False, True, True, False])
    by_hand = (2 * abs(0.5 - 0.91) + 2 * abs(1 - 0.515) + abs(0 - 0.10)) / 5
    assert expected_calibration_error(confidence, correct) == pytest.approx(by_hand)


def test_bins_are_closed_above_and_their_number_counts():
    # 0.5 is in (0, 0.5]; were it in the upper bin, the errors of the two would cancel.
    assert expected_calibration_error([0.5, 0.75], [True, False], num_bins=2) == pytest.approx((0.5 + 0.75) / 2)
    assert expected_calibration_error([0.5, 0.75], [True, False], num_bins=1) == pytest.approx(0.125)
    assert expected_calibration_error([0.0, 1.0], [False, True]) == 0


def test_predictions_in_parts_count_as_one():
    rng = np.random.default_rng(0)
    confidence, correct = rng.uniform(size=500), rng.uniform(size=500) < 0.4
    bins = CalibrationBins()
    for part in np.split(np.arange(500), [3, 200]):
        bins.update(confidence[part], correct[part])
    assert bins.error == pytest.approx(expected_calibration_error(confidence, correct))
    assert bins.accuracy == pytest.approx(correct.mean())
    assert expected_calibration_error(confidence, rng.uniform(size=500) < confidence) < 0.1 < bins.error


def test_no_predictions_and_no_probabilities_are_refused():
    with pytest.raises(ValueError, match="needs predictions"):
        expected_calibration_error([], [])
    with pytest.raises(ValueError, match="between 0 and 1"):
        expected_calibration_error([1.2], [True])
