"""The gate of an export: what was written is loaded back and compared with the trained model."""

from pathlib import Path

import torch

from .code_imports import check_imports
from .level_exporter import Comparison, LevelExporter


TOLERANCE = 1e-5


class ExportError(RuntimeError):
    """An export does not load, or does not compute what the trained model computes."""


@torch.no_grad()
def check_export(exporter: LevelExporter, form: str, folder: Path) -> float:
    """Load an export from disk in every way that its users have, and compare its outputs with the trained model's.

    Args:
        exporter ([`LevelExporter`]): What wrote it.
        form (`str`): The form that it has.
        folder (`Path`): Where it lies.

    Returns:
        `float`: The largest absolute difference of an output value.

    Raises:
        ExportError: If the export does not load, or a value differs by more than 1e-5 (more for half precision), or
            than 1e-5 of the size of the values (their root mean square) where that is above 1, as of logits.
        ValueError: If its code imports what others need not have, see [`~hub.code_imports.check_imports`].
    """
    # Before the comparisons, which run that code.
    check_imports(folder)
    tolerance = max(TOLERANCE, 4 * max(torch.finfo(dtype).eps for dtype in exporter.dtypes))
    largest = 0.0
    try:
        for comparison in exporter.comparisons(form, folder):
            difference = _difference(comparison)
            # Rounding grows with the values.
            allowed = tolerance * max(1.0, comparison.expected.detach().float().square().mean().sqrt().item())
            if not difference <= allowed:
                raise ExportError(
                    f"the export {folder.name} differs from the trained model at level {comparison.level} "
                    f"({comparison.what}) by {difference:.1e}, more than {allowed:.0e}; it was not written"
                )
            largest = max(largest, difference)
    except ExportError:
        raise
    except Exception as error:  # Whatever the reload raises, nobody could use this export.
        raise ExportError(f"the export {folder.name} does not load back: {error}") from error
    return largest


def _difference(comparison: Comparison) -> float:
    actual, expected = comparison.actual, comparison.expected
    if actual.shape != expected.shape:
        raise ExportError(
            f"the output of {comparison.what} at level {comparison.level} has the shape {tuple(actual.shape)}, not "
            f"{tuple(expected.shape)}; it was not written"
        )
    # Comparisons with NaN are false: it would pass as no difference.
    difference = (actual.detach().cpu().float() - expected.detach().cpu().float()).abs()
    return difference.nan_to_num(nan=torch.inf).max().item()
