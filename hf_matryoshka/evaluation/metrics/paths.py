"""Where the `evaluate` modules lie."""

from pathlib import Path


METRIC_NAMES = ("autc", "monotonicity_violations", "prefix_overlap")


def metric_path(name: str) -> str:
    """Folder of an `evaluate` module, for `evaluate.load(metric_path("autc"))` without a network.

    The folder is also a whole Space: pushed as it is, everybody can load it by its name.

    Args:
        name (`str`): `"autc"`, `"monotonicity_violations"` or `"prefix_overlap"`.

    Returns:
        `str`: The path.

    Raises:
        ValueError: If there is no such metric.
    """
    if name not in METRIC_NAMES:
        raise ValueError(f"metric {name!r} does not exist; choose one of {', '.join(METRIC_NAMES)}")
    return str(Path(__file__).resolve().parent / name)
