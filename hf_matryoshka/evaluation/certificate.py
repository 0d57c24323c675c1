"""A certificate that the larger levels of a chain do not lose to the smaller ones on held-out data."""

import hashlib
import itertools
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..data.files import write_beside
from .bootstrap import bootstrap_mean


CERTIFICATE_FILE = "certificate.json"
# Fewer items say nothing about the spread of their mean.
MIN_ITEMS = 20
# The bounds of several pairs lie far out: of 2,000 samples only a handful would be beyond them.
RESAMPLES = 10_000
# Share of an item's loss (of 1, where it is smaller) up to which a difference is the rounding of float32 sums.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Split:
    """A part of the held-out data.

    Args:
        items (`int`): Rows or texts that were scored.
        documents (`int`): Documents that they hold.
        sha256 (`str`): Of the contents of these, whatever their order.
    """

    items: int
    documents: int
    sha256: str


@dataclass(frozen=True)
class CertifiedGate:
    """A gate of the chain: what the larger level has beyond the smaller one was multiplied by `alpha`. `inexact` says
    why a gate of 0 would not be the smaller level, if it would not."""

    smaller: str
    larger: str
    alpha: float
    inexact: str | None = None


@dataclass(frozen=True)
class PairDifference:
    """Two levels of the chain on the certificate split.

    Args:
        smaller, larger (`str`): Names of the levels.
        difference (`float`): Mean loss of the larger level minus that of the smaller one.
        low, high (`float`): One-sided lower and upper confidence bounds, corrected for the number of pairs.
        certified (`bool`): Whether the upper bound is at most the tolerance.
        violation (`bool`): Whether the difference is above 0.
    """

    smaller: str
    larger: str
    difference: float
    low: float
    high: float
    certified: bool
    violation: bool


@dataclass(frozen=True)
class Certificate:
    """What was found on the certificate split, along a chain of levels each inside the next.

    The bounds are those of a paired percentile bootstrap over items. They hold together: with the probability
    `confidence`, up to what a bootstrap can say, no pair that is certified has a larger level whose mean loss on data
    like the split's is more than `tolerance` above that of the smaller one (Bonferroni). Nothing is said about a
    single item, other data, another metric, or levels outside the chain.

    Args:
        metric (`str`): The loss, lower is better, for example `"nll"`.
        unit (`str`): What an item is: `"rows"` or `"texts"`.
        chain (`list[str]`): Names of the levels, the smallest first.
        gates (`list[CertifiedGate]`): The gates of the neighbours, chosen on the calibration split.
        pairs (`list[PairDifference]`): All pairs of the chain.
        calibration, certificate ([`Split`]): The data, disjoint.
        tolerance (`float`): Loss that a larger level may lose.
        confidence (`float`): Of all bounds together.
        resamples (`int`): Bootstrap samples.
        date (`str`): Day of the measurement.
        changed (`list[str]`): Levels that the gates changed, also outside the chain.
        violations_before (`int`, *optional*): Pairs of the chain with a violation on the same data without gates.
    """

    metric: str
    unit: str
    chain: list[str]
    gates: list[CertifiedGate]
    pairs: list[PairDifference]
    calibration: Split
    certificate: Split
    tolerance: float
    confidence: float
    resamples: int
    date: str
    changed: list[str]
    violations_before: int | None = None

    @property
    def violations(self) -> int:
        """Number of pairs whose larger level has the higher mean loss."""
        return sum(pair.violation for pair in self.pairs)

    @property
    def certified(self) -> int:
        """Number of pairs that are certified."""
        return sum(pair.certified for pair in self.pairs)

    def to_dict(self) -> dict[str, Any]:
        """The certificate as JSON has it, with the numbers of violations and of certified pairs."""
        return {**asdict(self), "violations": self.violations, "certified": self.certified}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Certificate":
        """Read what [`Certificate.to_dict`] gave.

        Raises:
            KeyError, TypeError, AttributeError: If it is something else.
        """
        parts = {
            "gates": [CertifiedGate(**_known(CertifiedGate, gate)) for gate in data["gates"]],
            "pairs": [PairDifference(**_known(PairDifference, pair)) for pair in data["pairs"]],
            "calibration": Split(**_known(Split, data["calibration"])),
            "certificate": Split(**_known(Split, data["certificate"])),
        }
        return cls(**{**_known(cls, data), **parts})

    def to_json(self, path: str | os.PathLike) -> None:
        """Write the certificate; the file appears under its name only when it is whole."""
        with write_beside(Path(path)) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_json(cls, path: str | os.PathLike) -> "Certificate":
        """Read what [`Certificate.to_json`] wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no certificate.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"certificate {path} does not exist")
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
            raise ValueError(f"{path} is no certificate as written by Certificate.to_json") from None


def _known(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that this version knows: a later release may add some."""
    names = {item.name for item in fields(kind)}
    return {name: value for name, value in data.items() if name in names}


def content_hash(text: str) -> str:
    """sha256 of a text, the same for one that differs in case and white space only."""
    return hashlib.sha256(" ".join(text.casefold().split()).encode("utf-8", "surrogatepass")).hexdigest()


def describe_split(items: int, hashes: Collection[str]) -> Split:
    """The record of a split from the [`content_hash`] of each of its documents."""
    unique = sorted(set(hashes))
    return Split(items, len(unique), hashlib.sha256("\n".join(unique).encode()).hexdigest())


def check_splits(calibration: Collection[str], certificate: Collection[str]) -> None:
    """Raise unless two splits, given as the hashes of their documents, can carry a certificate.

    Raises:
        ValueError: If one is empty, or they have a document in common.
    """
    for name, hashes in (("calibration", calibration), ("certificate", certificate)):
        if not hashes:
            raise ValueError(
                f"a certificate needs held-out data, but the {name} split is empty; give texts for calibration and "
                "others for the certificate"
            )
    common = len(set(calibration) & set(certificate))
    if common:
        raise ValueError(
            f"{common} of the {len(set(certificate))} documents for the certificate are also among those for "
            "calibration; give other texts, on which no gate was chosen"
        )


def check_items(count: int, unit: str) -> None:
    """Raise `ValueError` if a certificate split has too few items."""
    if count < MIN_ITEMS:
        raise ValueError(f"a certificate needs {MIN_ITEMS} held-out {unit} or more, but there are {count}")


def check_bounds(tolerance: float, confidence: float) -> None:
    """Raise `ValueError` unless a certificate can be about this tolerance and confidence."""
    if tolerance < 0 or not 0.5 < confidence < 1:
        raise ValueError(
            f"tolerance must be at least 0 and confidence above 0.5 and below 1, but they are {tolerance} and "
            f"{confidence}"
        )


def pair_differences(
    losses: Mapping[str, np.ndarray],
    weights: np.ndarray | None = None,
    *,
    tolerance: float = 0.0,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> list[PairDifference]:
    """All pairs of a chain, with paired bootstrap bounds (Efron, 1979) that hold together (Bonferroni).

    A difference of at most 1e-5 of an item's loss counts as 0: the same function in another order of sums.

    Args:
        losses (`Mapping[str, np.ndarray]`): Loss of each item by level, the smallest level first.
        weights (`np.ndarray`, *optional*): What each item stands for.
        tolerance (`float`, *optional*, defaults to 0.0): Mean loss that a larger level may lose.
        confidence (`float`, *optional*, defaults to 0.95): Of all bounds together.
        resamples (`int`, *optional*, defaults to 10,000): Bootstrap samples.

    Raises:
        ValueError: If there are fewer than two levels or a number is out of range.
    """
    if len(losses) < 2:
        raise ValueError(f"a certificate compares two levels or more, but there are {len(losses)}")
    check_bounds(tolerance, confidence)
    steps = list(itertools.combinations(losses, 2))
    # An interval of twice this error has a one-sided bound of this error at either end.
    error = (1 - confidence) / len(steps)
    found = []
    for smaller, larger in steps:
        below = np.asarray(losses[smaller], dtype=np.float64)
        difference = np.asarray(losses[larger], dtype=np.float64) - below
        difference[np.abs(difference) <= ROUNDING * np.maximum(1, np.abs(below))] = 0
        mean, low, high = bootstrap_mean(difference, resamples, confidence=1 - 2 * error, weights=weights)
        found.append(PairDifference(smaller, larger, mean, low, high, high <= tolerance, mean > 0))
    return found


def certify_chain(
    losses: Mapping[str, np.ndarray],
    weights: np.ndarray | None,
    *,
    metric: str,
    unit: str,
    gates: Sequence[CertifiedGate],
    calibration: Split,
    certificate: Split,
    changed: Sequence[str] = (),
    violations_before: int | None = None,
    tolerance: float = 0.0,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Certificate:
    """The certificate of a chain, from the losses of its levels on the certificate split.

    Args:
        losses (`Mapping[str, np.ndarray]`): Loss of each item by level of the chain, the smallest first.
        weights (`np.ndarray`, *optional*): What each item stands for.

    The other arguments are those of [`Certificate`] and [`pair_differences`].

    Raises:
        ValueError: If there are too few items or levels, or a number is out of range.
    """
    for values in losses.values():
        check_items(len(values), unit)
    settings: dict[str, Any] = {"tolerance": tolerance, "confidence": confidence, "resamples": resamples}
    return Certificate(
        metric=metric,
        unit=unit,
        chain=list(losses),
        gates=list(gates),
        pairs=pair_differences(losses, weights, **settings),
        calibration=calibration,
        certificate=certificate,
        date=datetime.now(UTC).date().isoformat(),
        changed=list(changed),
        violations_before=violations_before,
        **settings,
    )
