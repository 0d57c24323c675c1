"""The certificate of a chain: what its bounds say, and what it refuses."""

import json

import numpy as np
import pytest

from hf_matryoshka.evaluation.bootstrap import bootstrap_mean
from hf_matryoshka.evaluation.certificate import (
    Certificate,
    CertifiedGate,
    certify_chain,
    check_splits,
    content_hash,
    describe_split,
    pair_differences,
)


RNG = np.random.default_rng(0)
BASE = 3 + RNG.normal(size=200)
LOSSES = {
    "a": BASE,
    "b": BASE - 0.3 + 0.1 * RNG.normal(size=200),
    "c": BASE - 0.3 + 0.1 * RNG.normal(size=200),
    "d": BASE + 0.2,
}
SETTINGS = {"resamples": 500}


def certify(losses=LOSSES, weights=None, **settings):
    names = list(losses)
    described = {
        "metric": "nll",
        "unit": "rows",
        "gates": [CertifiedGate(*pair, 0.5) for pair in zip(names, names[1:], strict=False)],
        "calibration": describe_split(90, ["x", "y"]),
        "certificate": describe_split(200, ["z"]),
    }
    return certify_chain(losses, weights, **{**described, **SETTINGS, **settings})


def test_pairs_are_certified_by_their_upper_bound_only():
    found = {(pair.smaller, pair.larger): pair for pair in pair_differences(LOSSES, **SETTINGS)}
    assert list(found) == [("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d")]
    assert found["a", "b"].certified and found["a", "c"].certified and not found["a", "b"].violation
    # Equal in truth: the one that happens to be lower is not certified either.
    assert found["b", "c"].low < 0 < found["b", "c"].high and not found["b", "c"].certified
    assert found["a", "d"].violation and not found["a", "d"].certified
    assert found["a", "d"].difference == pytest.approx(0.2) == found["a", "d"].high
    allowed = {(p.smaller, p.larger): p for p in pair_differences(LOSSES, tolerance=0.2 + 1e-9, **SETTINGS)}
    assert allowed["a", "d"].certified and allowed["a", "d"].violation and not allowed["b", "d"].certified


def test_bounds_are_one_sided_and_hold_together():
    """Bonferroni: six pairs at 95% have bounds at 1 - 0.05 / 6 each, at either end."""
    pair = pair_differences(LOSSES, **SETTINGS)[3]
    expected = bootstrap_mean(LOSSES["c"] - LOSSES["b"], 500, confidence=1 - 2 * 0.05 / 6)
    assert (pair.difference, pair.low, pair.high) == expected
    (alone,) = pair_differences({name: LOSSES[name] for name in ("b", "c")}, confidence=0.9, **SETTINGS)
    assert (alone.low, alone.high) == bootstrap_mean(LOSSES["c"] - LOSSES["b"], 500, confidence=0.8)[1:]
    assert alone.high < pair.high


def test_weights_count():
    weights = np.where(LOSSES["c"] > LOSSES["b"], 9.0, 1.0)
    plain, weighted = (
        pair_differences({"b": LOSSES["b"], "c": LOSSES["c"]}, given, **SETTINGS)[0] for given in (None, weights)
    )
    assert weighted.difference == pytest.approx(np.average(LOSSES["c"] - LOSSES["b"], weights=weights))
    assert weighted.violation and weighted.low > plain.high


def test_the_rounding_of_sums_is_no_difference():
    """A gate of 0 gives the same function, in another order of sums: equal, so certified."""
    noise = BASE * (1 + 1e-6 * RNG.normal(size=200)) + 1e-7
    (pair,) = pair_differences({"a": BASE, "b": noise}, **SETTINGS)
    assert (pair.difference, pair.low, pair.high, pair.certified, pair.violation) == (0, 0, 0, True, False)
    (pair,) = pair_differences({"a": BASE, "b": BASE + 1e-3}, **SETTINGS)
    assert pair.violation and not pair.certified


def test_a_certificate_says_what_it_rests_on(tmp_path):
    found = certify(changed=["b"], violations_before=5)
    assert found.chain == ["a", "b", "c", "d"] and (found.violations, found.certified) == (
        sum(pair.violation for pair in found.pairs),
        2,
    )
    assert found.violations >= 3 and found.confidence == 0.95 and found.tolerance == 0
    assert (found.calibration.items, found.calibration.documents, found.certificate.documents) == (90, 2, 1)
    assert len(found.date) == 10
    path = tmp_path / "certificate.json"
    found.to_json(path)
    assert Certificate.from_json(path) == found
    data = json.loads(path.read_text())
    assert data["violations"] == found.violations and data["certified"] == 2
    # Of a later release.
    path.write_text(json.dumps({**data, "novelty": 1, "pairs": [{**pair, "novelty": 1} for pair in data["pairs"]]}))
    assert Certificate.from_json(path) == found


def test_no_certificate(tmp_path):
    path = tmp_path / "certificate.json"
    with pytest.raises(FileNotFoundError, match="certificate .* does not exist"):
        Certificate.from_json(path)
    for text in ("{}", "[]", "{", '{"gates": 3}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="is no certificate as written by Certificate.to_json"):
            Certificate.from_json(path)


def test_splits_must_be_there_and_share_nothing():
    a, b, c = (content_hash(text) for text in ("one text", "another", "a third"))
    assert content_hash("  One\n text ") == a != b
    assert describe_split(3, [a, b]) == describe_split(3, [b, a, a]) != describe_split(3, [a, c])
    check_splits({a}, {b, c})
    with pytest.raises(ValueError, match="needs held-out data, but the certificate split is empty; give texts"):
        check_splits({a}, set())
    with pytest.raises(ValueError, match="needs held-out data, but the calibration split is empty"):
        check_splits(set(), {a})
    with pytest.raises(ValueError, match="1 of the 2 documents for the certificate are also among those for calib"):
        check_splits({a, b}, {b, c})


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="needs 20 held-out rows or more, but there are 19"):
        certify({name: values[:19] for name, values in LOSSES.items()})
    with pytest.raises(ValueError, match="compares two levels or more, but there are 1"):
        certify({"a": BASE})
    for settings in ({"tolerance": -1}, {"confidence": 1.0}, {"confidence": 0.5}):
        with pytest.raises(ValueError, match="tolerance must be at least 0 and confidence above 0.5 and below 1"):
            certify(**settings)
