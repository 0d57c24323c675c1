"""`hf-matryoshka select`."""

from pathlib import Path
from typing import Annotated

import typer

from .command import print_json
from .options import JsonFlag


def select(
    source: Annotated[
        str,
        typer.Argument(help="A family (folder or Hub id), or a curve as written by quickstart or evaluate (JSON)."),
    ],
    min_quality: Annotated[
        float | None, typer.Option(help="Share of the largest level's quality to keep, for example 0.95.")
    ] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="Limit on the latency of the adaptor.")] = None,
    max_memory_mb: Annotated[float | None, typer.Option(help="Limit on the size of an index.")] = None,
    num_vectors: Annotated[int | None, typer.Option(help="Number of vectors in that index.")] = None,
    json: JsonFlag = False,
) -> None:
    """Name the smallest level that meets every demand.

    Example: hf-matryoshka select outputs/quickstart/curve.json --min-quality 0.95
    """
    from ..evaluation.curve import Curve
    from ..evaluation.selection import quality_share
    from ..hub.family import load_family

    found = Curve.from_json(source) if Path(source).is_file() else load_family(source).curve()
    level = found.select(min_quality, max_latency_ms, max_memory_mb, num_vectors)
    point = found[level]
    if json:
        print_json({"level": level, "dim": point.dim, "quality": point.quality, "cost": point.cost})
    else:
        share = quality_share(point.quality, found.qualities[-1])
        width = "" if point.dim is None else f"{point.dim} dimensions, "
        print(f"{level}: {width}{found.metric} {point.quality:.4f} ({share:.1%} of the largest level)")
