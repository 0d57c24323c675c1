"""Tables of a card: the levels of the family, and systems beside each other."""

from collections.abc import Sequence
from typing import Any

from ..evaluation.curve import Curve
from .manifest import FULL, FamilyLevel, Manifest


# Columns of the family's table, where any level has them.
_COSTS = ("bytes_per_vector", "bytes_per_token", "parameters", "macs", "flops_per_token")
BUDGET_COLUMNS = ("width", "heads", "layers")
_FORMS = {"stock": "stock", "stock_padded": "stock, zero-padded", "remote_code": "remote code"}


def sibling_placeholder(name: str) -> str:
    """What a card links to for another repo of the family: the folder beside it, until a push knows the id."""
    return f"../{name}"


def family_table(manifest: Manifest) -> dict[str, Any]:
    """Every level with cost, quality and form; its name leads to its repo, and this repo's own level is bold.

    Args:
        manifest ([`Manifest`]): That of the repo.

    Returns:
        `dict`: `columns` (`dim`, `bytes_per_vector` and so on; a quality is a `(metric, split)`), `rows` of cells, and
        `intervals`, whether there are any. Budgets have a column each for width, heads and layers.
    """
    levels = manifest.levels
    own = {repo.name: repo for repo in manifest.repos if repo.name != FULL}
    costs = cost_columns(manifest)
    budgets = [] if levels[0].budget is None else list(BUDGET_COLUMNS)
    qualities = list(dict.fromkeys((score["metric"], score["split"]) for level in levels for score in level.quality))
    rows = []
    for level in levels:
        linked = level.name in own and level.name != manifest.this
        cells = [f"[{level.name}]({sibling_placeholder(level.name)})" if linked else level.name]
        cells += budget_cells(level)
        cells += [] if level.dim is None else [str(level.dim)]
        cells += [f"{level.cost[cost]:,.0f}" if cost in level.cost else "" for cost in costs]
        cells += [_quality(level, key) for key in qualities]
        cells += [_FORMS[own[level.name].form] if level.name in own else ""] if own else []
        rows.append(_row(cells, bold=level.name == manifest.this))
    dims = ["dim"] if levels[0].dim is not None else []
    return {
        "columns": ["level", *budgets, *dims, *costs, *qualities, *(["form"] if own else [])],
        "rows": rows,
        "intervals": any(score["low"] is not None for level in levels for score in level.quality),
    }


def cost_columns(manifest: Manifest) -> list[str]:
    """The costs that a table shows: those that any level has; multiply-adds only where there are no FLOPs."""
    costs = [cost for cost in _COSTS if any(cost in level.cost for level in manifest.levels)]
    return [cost for cost in costs if cost != "macs" or "flops_per_token" not in costs]


def budget_cells(level: FamilyLevel) -> list[str]:
    """The budget of a level, a cell for each of `BUDGET_COLUMNS`; none if it is no budget."""
    if level.budget is None:
        return []
    width, heads, layers = level.budget
    shares = width if isinstance(width, list) else [width]
    return [", ".join(f"{share:g}" for share in shares), str(heads), str(layers)]


def quality_tables(curves: Sequence[Curve], level: str | None = None) -> list[dict[str, Any]]:
    """Curves as tables, one for each metric and split: levels as rows (this level in bold), systems as columns."""
    tables: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    intervals = set()
    for row in (row for curve in curves for row in curve.rows()):
        key = (row["metric"], row["split"])
        text = _score(row["value"], row["low"], row["high"])
        if row["low"] is not None:
            intervals.add(key)
        tables.setdefault(key, {}).setdefault(row["level"], {})[row["system"]] = text
    shown = []
    for (metric, split), by_level in tables.items():
        systems = list(dict.fromkeys(system for values in by_level.values() for system in values))
        rows = [
            _row([name, *(values.get(system, "") for system in systems)], bold=name == level)
            for name, values in by_level.items()
        ]
        shown.append(
            {
                "metric": metric,
                "split": split,
                "systems": _row(systems),
                "rows": rows,
                "intervals": (metric, split) in intervals,
            }
        )
    return shown


def certificate_section(manifest: Manifest) -> dict[str, Any] | None:
    """What a card says about the certificate of a family; `None` if it has none.

    Args:
        manifest ([`Manifest`]): That of the repo.

    Returns:
        `dict`: `rows` of cells (smaller and larger level, the repo's own in bold; gate of neighbours; difference with
        its bounds; whether it is certified), `outside` (names of levels that it says nothing about), `inexact` (why
        gates of 0 are not the smaller level).
    """
    certificate = manifest.certificate
    if certificate is None:
        return None
    gates = {(gate.smaller, gate.larger): f"{gate.alpha:g}" for gate in certificate.gates}
    rows = [
        [
            *(_row([name], bold=name == manifest.this)[0] for name in (pair.smaller, pair.larger)),
            gates.get((pair.smaller, pair.larger), ""),
            f"{pair.difference:+.4f} [{pair.low:+.4f}, {pair.high:+.4f}]",
            "yes" if pair.certified else "no",
        ]
        for pair in certificate.pairs
    ]
    return {
        "rows": rows,
        "outside": [level.name for level in manifest.levels if level.name not in certificate.chain],
        "inexact": [gate.inexact for gate in certificate.gates if gate.inexact is not None],
    }


def _quality(level: FamilyLevel, key: tuple[str, str]) -> str:
    for score in level.quality:
        if (score["metric"], score["split"]) == key:
            return _score(score["value"], score["low"], score["high"])
    return ""


def _score(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")


def _row(cells: Sequence[str], bold: bool = False) -> list[str]:
    # A bare bar would end the cell.
    cells = [cell.replace("|", "\\|") for cell in cells]
    return [f"**{cell}**" if cell and bold else cell for cell in cells]
