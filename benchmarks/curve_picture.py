"""Draws the picture of a curve for README.md and the site, from committed rows.

    python benchmarks/curve_picture.py

`adaptor_scifact`: nDCG@10 by number of dimensions on the queries whose documents training has not seen, with 95%
bootstrap intervals of ours over the queries.
"""

import argparse
import json
from pathlib import Path

from hf_matryoshka import Curve
from hf_matryoshka.evaluation.curve import LevelPoint
from hf_matryoshka.evaluation.plot import plot_curves


ROWS = Path(__file__).parent / "results" / "adaptor_scifact.json"
OUT = Path(__file__).parents[1] / "docs" / "images" / "adaptor_scifact.png"
SPLIT, METRIC = "test_unseen", "ndcg_at_10"
SYSTEMS = {
    "truncation": "truncation",
    "svd": "SVD, no training",
    "ours_unsupervised": "adaptor, unsupervised",
    "ours_supervised": "adaptor, supervised",
}


def read_curves(path: Path) -> list[Curve]:
    """A curve for each of `SYSTEMS`, from the rows of a report."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    found = []
    for system, name in SYSTEMS.items():
        points = [
            LevelPoint(row["level"], int(row["level"].removeprefix("d")), row["value"], row["low"], row["high"], {})
            for row in rows
            if (row["system"], row["split"], row["metric"]) == (system, SPLIT, METRIC)
        ]
        found.append(Curve(points, METRIC, SPLIT, name))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=OUT, type=Path)
    arguments = parser.parse_args()
    curves = read_curves(ROWS)
    ours = [name for system, name in SYSTEMS.items() if system.startswith("ours")]
    title = "SciFact, queries whose documents training has not seen"
    print(plot_curves(curves, arguments.out, title=title, emphasised=ours, dpi=110))


if __name__ == "__main__":
    main()
