"""The rows of a report as measurements: one number for each system, level, split and setting.

Rows of one seed each become their mean. What a row holds beside its value (seconds, parameters, a gain) becomes a
measurement of its own.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hf_matryoshka.evaluation.seed_interval import seed_interval


AXES = ("system", "level", "split")
OWN = {*AXES, "metric", "value", "low", "high", "seed", "seeds"}
PER_SEED = ("values", "per_seed")
BOUNDS = ("_low", "_high")


@dataclass(frozen=True)
class Measurement:
    """A number of a table.

    Args:
        metric (`str`): What was measured.
        place (`dict[str, Any]`): Of what: `system`, `level`, `split`, and the keys that tell such rows apart.
        value (`float`): The number.
        low, high (`float`, *optional*): Its interval.
        seeds (`int`): How many seeds it is the mean of.
        beside (`bool`): Whether it stands beside the value of rows.
    """

    metric: str
    place: dict[str, Any]
    value: float
    low: float | None = None
    high: float | None = None
    seeds: int = 1
    beside: bool = False


def measurements(rows: list[dict[str, Any]]) -> list[Measurement]:
    """All numbers of a report, in its order; those beside the values come last.

    Args:
        rows (`list[dict]`): The rows of a report.

    Returns:
        `list[Measurement]`: No two have the same metric, place and number of seeds.

    Raises:
        ValueError: If nothing tells two rows apart.
    """
    settings = settings_of(rows)
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["metric"], "seed" in row, *place_of(row, settings).items()), []).append(row)
    seeded = {key[0] for key in groups if key[1]}
    means, found = {}, []
    for (metric, by_seed, *place), members in groups.items():
        name = metric.removesuffix("_mean").removeprefix("mean_")
        if not by_seed and name != metric and name in seeded:
            metric = name
            means[name, members[0]["seeds"], members[0]["value"]] = True
        found.append((by_seed, measured(metric, dict(place), members)))
    # Of rows by seed whose mean is a row as well, that row is shown: it has the script's own interval.
    kept = [one for by_seed, one in found if not (by_seed and (one.metric, one.seeds, one.value) in means)]
    return kept + beside(rows, settings)


def measured(metric: str, place: dict[str, Any], members: list[dict[str, Any]]) -> Measurement:
    """One row, or the mean of those of several seeds."""
    if len(members) == 1:
        row = members[0]
        return Measurement(metric, place, row["value"], row.get("low"), row.get("high"), row.get("seeds", 1))
    return Measurement(metric, place, **seed_interval([row["value"] for row in members]))


def settings_of(rows: list[dict[str, Any]]) -> list[str]:
    """Keys that tell apart rows of one system, level, split, metric and seed.

    Raises:
        ValueError: If there are none.
    """
    # A name is a setting before a count is, and a count before what was measured.
    ranks = {str: 0, int: 1, float: 2}
    kinds = {key: ranks[type(value)] for row in rows for key, value in row.items() if type(value) in ranks}
    candidates = sorted((key for key in kinds if key not in OWN), key=kinds.__getitem__)
    chosen: list[str] = []
    while True:
        groups: dict[tuple, list[dict[str, Any]]] = {}
        for row in rows:
            groups.setdefault((row["metric"], row.get("seed"), *place_of(row, chosen).items()), []).append(row)
        alike = [members for members in groups.values() if len(members) > 1]
        if not alike:
            return chosen
        differing = (key for key in candidates if any(len({row.get(key) for row in one}) > 1 for one in alike))
        key = next((key for key in differing if key not in chosen), None)
        if key is None:
            raise ValueError(f"nothing tells two rows of {alike[0][0]['metric']} apart: {alike[0][0]}")
        chosen.append(key)


def place_of(row: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    return {key: row[key] for key in (*AXES, *settings) if row.get(key) is not None}


def beside(rows: list[dict[str, Any]], settings: list[str]) -> list[Measurement]:
    """What rows hold beside their values."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        for key, value in row.items():
            if key not in (*OWN, *PER_SEED, *settings) and not key.endswith(BOUNDS) and numbers_in(value):
                found.setdefault(key, []).append(row)
    return [one for key, members in found.items() for one in beside_one(key, members, settings)]


def beside_one(key: str, rows: list[dict[str, Any]], settings: list[str]) -> list[Measurement]:
    """One of those numbers, by as few keys as tell its values apart: parameters by level, seconds by system."""
    varies = any(row[key] != rows[0][key] for row in rows)
    names = (*AXES, *settings, "metric") if varies else ()
    sizes = range(varies, len(names) + 1)
    for kept in itertools.chain.from_iterable(itertools.combinations(names, size) for size in sizes):
        groups: dict[tuple, dict[Any, dict[str, Any]]] = {}
        for row in rows:
            by_seed = groups.setdefault(tuple((name, row[name]) for name in kept if name in row), {})
            if by_seed.setdefault(row.get("seed"), row)[key] != row[key]:
                break
        else:
            break
    found = []
    for place, by_seed in groups.items():
        values = [number for row in by_seed.values() for number in numbers_in(row[key])]
        if len(set(values)) > 1:
            found.append(Measurement(key, dict(place), **seed_interval(values), beside=True))
            continue
        row = next(iter(by_seed.values()))
        low, high = (row.get(bound) for bound in bounds_of(key, row))
        seeds = 1 if low is None else row.get("seeds", 1)
        found.append(Measurement(key, dict(place), values[0], low, high, seeds, beside=True))
    return found


def bounds_of(key: str, row: dict[str, Any]) -> tuple[str, str]:
    """Names of the ends of an interval: those of `gain_over_svd` are `gain_low` and `gain_high`."""
    stems = [name.removesuffix(BOUNDS[0]) for name in row if name.endswith(BOUNDS[0])]
    stem = next((stem for stem in stems if key == stem or key.startswith(f"{stem}_")), key)
    return f"{stem}{BOUNDS[0]}", f"{stem}{BOUNDS[1]}"


def numbers_in(value: Any) -> list[float]:
    """A number, or a list of them, one a seed; else nothing."""
    values = value if isinstance(value, list) else [value]
    return values if all(isinstance(one, int | float) and not isinstance(one, bool) for one in values) else []
