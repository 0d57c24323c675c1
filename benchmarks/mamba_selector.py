"""Whether `select_optimal_dimension` keeps its promise: the asked share of the quality, on queries it has not seen.

    python benchmarks/mamba_selector.py --scores outputs/mamba_quality/scifact_scores.json

Scores are nDCG@10 of the 300 test queries of SciFact at every width and dimension, from `mamba_quality.py`. In each of
`--resplits` rounds half of the queries, at random, are what the frontier is measured on; a width and a dimension are
chosen from it for a demanded share of the full quality ([`Frontier.select`]), and compared on

- `held_out`: the other half;
- `population`: all queries, of which the frontier had as many as there are, drawn with replacement.

`kept` is the share of rounds with a choice in which the share of the quality there is at least the demanded one;
`chosen` the share of rounds with a choice (else there is an `InfeasibleConstraint`, and no promise), other than the
full size itself; `mean_dim` the mean dimension chosen. `ours` is the selector with its default confidence, 0.95, which
is about the quality on all queries; `ours_0.99` asks for 0.99, which leaves room for the chance that is in another
half as well, and was added after the results of 0.95 on these queries were seen; `point_estimate` chooses in the same
way by the measured share itself, without a bound.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.table import format_rows
from hf_matryoshka.modeling.dimension_frontier import Frontier, FrontierPoint, InfeasibleConstraint


DEMANDS = (0.8, 0.9, 0.95, 0.98)
CONFIDENCE = {"ours": 0.95, "ours_0.99": 0.99}
SYSTEMS = (*CONFIDENCE, "point_estimate")


def frontier(levels: dict[str, dict[str, list[float]]], rows: np.ndarray) -> Frontier:
    """What would be measured on some queries; the time is not used here."""
    points = [
        FrontierPoint(level, int(dim), [scores[row] for row in rows], {128: 1.0})
        for level, dims in levels.items()
        for dim, scores in dims.items()
    ]
    return Frontier(points, "ndcg_at_10", "scifact", "-")


def choose(found: Frontier, demand: float, system: str) -> tuple[str, int] | None:
    try:
        confidence = CONFIDENCE.get(system)
        point = by_estimate(found, demand) if confidence is None else found.select(demand, confidence=confidence)
    except InfeasibleConstraint:
        return None
    return point.level, point.dim


def by_estimate(found: Frontier, demand: float) -> FrontierPoint:
    enough = [point for point, kept in zip(found.points, found.retained(), strict=True) if kept >= demand]
    return min(enough, key=lambda point: point.dim)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", type=Path, required=True, help="scores of the queries, from mamba_quality.py")
    parser.add_argument("--resplits", type=int, default=1000)
    parser.add_argument("--out", default="benchmarks/results/mamba_selector.json")
    arguments = parser.parse_args()

    levels = json.loads(arguments.scores.read_text(encoding="utf-8"))["ours"]
    scores = {(level, int(dim)): np.array(own) for level, dims in levels.items() for dim, own in dims.items()}
    full, count = list(scores)[-1], len(next(iter(scores.values())))
    rng = np.random.default_rng(0)
    kept: dict[tuple[str, str, float], list[bool]] = {}
    dims: dict[tuple[str, str, float], list[int]] = {}
    for _ in range(arguments.resplits):
        order = rng.permutation(count)
        halves = {"held_out": (order[: count // 2], order[count // 2 :])}
        halves["population"] = rng.integers(count, size=count), np.arange(count)
        for split, (seen, other) in halves.items():
            found = frontier(levels, seen)
            for demand in DEMANDS:
                for system in SYSTEMS:
                    choice, key = choose(found, demand, system), (system, split, demand)
                    # The full size keeps all of itself: no promise to test.
                    if choice is not None and choice != full:
                        share = scores[choice][other].mean() / scores[full][other].mean()
                        kept.setdefault(key, []).append(bool(share >= demand))
                        dims.setdefault(key, []).append(choice[1])
    rows, body = [], []
    for system, split, demand in sorted(kept):
        own, chosen = kept[system, split, demand], dims[system, split, demand]
        row = {"system": system, "level": "-", "split": f"scifact_{split}", "demand": demand, "seeds": 1}
        values = {"kept": np.mean(own), "chosen": len(own) / arguments.resplits, "mean_dim": np.mean(chosen)}
        rows += [row | {"metric": metric, "value": float(value)} for metric, value in values.items()]
        body.append([system, split, f"{demand:g}", *(f"{value:.3g}" for value in values.values())])
    print(format_rows(["system", "queries", "demanded", "kept", "chosen", "mean dim"], body))
    print(write_report(arguments.out, "mamba_selector", rows, resplits=arguments.resplits, queries=count))


if __name__ == "__main__":
    main()
