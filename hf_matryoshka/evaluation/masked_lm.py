"""The whole evaluation of a nested masked language model: quality, calibration and cost of every budget."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PreTrainedModel

from ..data.evaluation_mode import evaluation_mode
from ..data.mask_file import MaskedRows
from ..data.packing_info import check_vocabulary
from ..modeling.budgets import Budget, BudgetsMixin
from .autc_difference import autc_difference
from .bootstrap import bootstrap_mean
from .curve import Curve, LevelPoint
from .encoder_cost import encoder_cost
from .masked_lm_scores import LevelScores, MaskedBatches, check_batches, score_levels
from .plot import plot_curves
from .table import format_rows


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

METRIC = "negative_nll"
COST = "flops_per_token"

BudgetLike = Budget | Sequence | int | str


def run_full_evaluation(
    model: PreTrainedModel,
    loader: Iterable[Mapping[str, Any]],
    budgets: Sequence[BudgetLike] | None = None,
    device: torch.device | str | None = None,
    *,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    baselines: Mapping[str, Curve] | None = None,
    split: str = "validation",
    system: str = "ours",
    sequence_length: int | None = None,
    latency_repeats: int = 30,
    plot: str | os.PathLike | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Evaluates budgets of a Delta masked language model, all on the same masks.

    Every batch goes through all budgets while it is there, so memory does not grow with the test set. Give the loader
    of a fixed mask file ([`~data.mask_file.MaskedRows.loader`]), and several models compare as well.

    Intervals are 95% percentile bootstrap over rows (documents, where a batch is flattened), each drawn with all its
    masked tokens. The area under the trade-off curve (AUTC) is that of the negative NLL over the log of the FLOPs,
    scaled to [0, 1], through the budgets that no cheaper one equals (the upper Pareto envelope).

    Args:
        model (`PreTrainedModel`):
            A [`DeltaBertForMaskedLM`] or [`DeltaModernBertForMaskedLM`].
        loader (`Iterable[Mapping]`):
            Batches with `input_ids`, `labels` (-100 where nothing is asked) and whatever else the model takes, the
            same whenever they are read: a `DataLoader` without shuffling, or a list.
        budgets (`Sequence`, *optional*):
            Which: `(width, heads, depth)`, a [`Budget`], or the name or index of a level; all levels by default.
        device (`torch.device` or `str`, *optional*):
            Where to evaluate, after which the model goes back; by default where it is.
        tokenizer (`PreTrainedTokenizerBase`, *optional*):
            That of the checkpoint, checked against the one that the mask file was written with.
        baselines (`Mapping[str, Curve]`, *optional*):
            Other systems on the same masks, such as models that were trained independently (`results["curve"]` of
            theirs): the areas are compared, and the plot shows them.
        split (`str`, *optional*, defaults to `"validation"`):
            Name of the test set.
        system (`str`, *optional*, defaults to `"ours"`):
            Name of the model in the curve.
        sequence_length (`int`, *optional*):
            Tokens of a text, on which FLOPs and latency depend; by default the longest row.
        latency_repeats (`int`, *optional*, defaults to 30):
            Timed forwards of each budget at batch 1 and 32; 0 measures none.
        plot (`str` or `os.PathLike`, *optional*):
            PNG file to write: negative NLL against FLOPs.
        progress (`bool`, *optional*, defaults to `True`):
            Whether to show a progress bar.

    Returns:
        `dict[str, Any]`: `summary`, a flat `dict` of numbers; `budgets`, a `dict` for each budget with `nll` (nats, a
        mean over masked tokens) and `perplexity`, each with `_low` and `_high`, `accuracy`, `ece` (15 bins), and the
        costs of [`~evaluation.encoder_cost.encoder_cost`]; `violations`, the comparable pairs whose larger budget has
        the higher NLL; `table`, a text; `curve`, a [`Curve`] of the metric `"negative_nll"`, where higher is better.

    Raises:
        ValueError: If a budget is no level of the model, the loader is empty, has no labels or no masked token, or
            tokens do not fit the vocabulary; all before any work.
    """
    config = model.config
    if not hasattr(config, "budgets") or model.get_output_embeddings() is None:
        raise ValueError(
            f"a {type(model).__name__} is no nested masked language model; give a DeltaBertForMaskedLM or a "
            "DeltaModernBertForMaskedLM"
        )
    levels = _levels(config, budgets)
    dataset = getattr(loader, "dataset", None)
    if isinstance(dataset, MaskedRows):
        dataset.check_model(config, tokenizer)
    elif tokenizer is not None:
        check_vocabulary(len(tokenizer), config)
    batches = check_batches(loader, config.vocab_size)
    length = sequence_length or batches.length
    flops = [encoder_cost(model, level, sequence_length=length, repeats=0)[COST] for level in levels]
    others = {name: replace(other, system=name) for name, other in (baselines or {}).items()}
    for other in others.values():
        _check_baseline(other, split, batches, flops)
    with evaluation_mode(model, device):
        scores = score_levels(model, loader, levels, batches, progress=progress)
        costs = {
            level: encoder_cost(model, level, sequence_length=length, repeats=latency_repeats) for level in levels
        }
    points = [_point(config, level, levels, scores[level], batches, costs[level]) for level in levels]
    curve = Curve(points, METRIC, split, system, others)
    rows = [_row(point, scores[point.level]) for point in points]
    violations = [
        {
            "smaller": found.smaller,
            "larger": found.larger,
            # The other way round than qualities: how much higher the NLL of the larger budget is.
            "nll_difference": -found.difference,
            "low": None if found.high is None else -found.high,
            "high": None if found.low is None else -found.low,
            "significant": found.significant,
        }
        for found in curve.violations()
    ]
    results = {
        "summary": _summary(curve, rows, violations, batches, length),
        "budgets": rows,
        "violations": violations,
        "table": _table(rows),
        "curve": curve,
    }
    if plot is not None:
        plot_curves([curve], plot, cost=COST)
    return results


def _levels(config: BudgetsMixin, budgets: Sequence[BudgetLike] | None) -> list[str]:
    """Names of the levels that are asked for, in the order of the model."""
    if budgets is None:
        return list(config.levels)
    if not budgets:
        raise ValueError(f"budgets is empty; choose among {', '.join(config.levels)}, or None for all")
    known = {_key(config.budget(level)): level for level in config.levels}
    found = set()
    for entry in budgets:
        if isinstance(entry, (int, str)):
            found.add(config.level_name(entry))
            continue
        if not isinstance(entry, (Budget, Sequence)):
            raise ValueError(
                f"budget {entry!r} must be (width, heads, depth), a Budget, or the name or index of a level"
            )
        budget = entry if isinstance(entry, Budget) else Budget.parse(list(entry))
        if _key(budget) not in known:
            raise ValueError(f"budget {budget.name} is no level of the model; choose among {', '.join(config.levels)}")
        found.add(known[_key(budget)])
    return [level for level in config.levels if level in found]


def _key(budget: Budget) -> tuple:
    # Rounded as in the name: 1/3 and 0.3333 are one width.
    return tuple(round(width, 4) for width in budget.widths), budget.heads, budget.depth


def _check_baseline(other: Curve, split: str, batches: MaskedBatches, flops: Sequence[float]) -> None:
    """Raise `ValueError` unless a curve was made of the same masks and spans the same FLOPs."""
    if (other.metric, other.split) != (METRIC, split):
        raise ValueError(
            f"baseline {other.system} has {other.metric} on {other.split}, not {METRIC} on {split}; give the curve of "
            "a run_full_evaluation on the same masks"
        )
    weights = other.points[0].weights
    if weights is not None and not np.array_equal(weights, batches.counts[batches.counts > 0]):
        raise ValueError(f"baseline {other.system} was evaluated on other masks; evaluate both on one mask file")
    ends = min(other.costs(COST)), max(other.costs(COST))
    if not np.allclose(ends, (min(flops), max(flops)), rtol=1e-6):
        raise ValueError(
            f"baseline {other.system} has {ends[0]:,} to {ends[1]:,} FLOPs a token and the budgets have "
            f"{min(flops):,} to {max(flops):,}; areas compare over the same range only"
        )


def _point(
    config: BudgetsMixin,
    level: str,
    levels: Sequence[str],
    scores: LevelScores,
    batches: MaskedBatches,
    cost: dict[str, float],
) -> LevelPoint:
    masked = batches.counts > 0
    weights = batches.counts[masked].astype(np.float64)
    values = -np.concatenate(scores.nll)[masked] / weights
    budget = config.budget(level)
    inside = tuple(name for name in levels[: levels.index(level)] if config.budget(name).fits_in(budget))
    if len(values) == 1:  # one row has no spread
        return LevelPoint(level, None, float(values[0]), cost=cost, contains=inside)
    mean, low, high = bootstrap_mean(values, weights=weights)
    return LevelPoint(level, None, mean, low, high, cost, values, weights, inside)


def _row(point: LevelPoint, scores: LevelScores) -> dict[str, Any]:
    nll = {
        "nll": -point.quality,
        "nll_low": None if point.high is None else -point.high,
        "nll_high": None if point.low is None else -point.low,
    }
    perplexity = {
        name.replace("nll", "perplexity"): None if value is None else float(np.exp(value))
        for name, value in nll.items()
    }
    return {
        "level": point.level,
        **nll,
        **perplexity,
        "accuracy": scores.bins.accuracy,
        "ece": scores.bins.error,
        **point.cost,
    }


def _summary(
    curve: Curve, rows: list[dict], violations: list[dict], batches: MaskedBatches, length: int
) -> dict[str, float | int | str | None]:
    pairs = len(curve.comparable_pairs())
    best = min(rows, key=lambda row: row["nll"])
    one_cost = len({row[COST] for row in rows}) == 1
    summary = {
        "autc": None if one_cost else curve.autc(COST),
        "num_pairs": pairs,
        "num_violations": len(violations),
        "num_significant_violations": sum(bool(found["significant"]) for found in violations),
        "violation_rate": len(violations) / pairs if pairs else 0.0,
        "best_level": best["level"],
        "best_perplexity": best["perplexity"],
        "full_level": rows[-1]["level"],
        "full_perplexity": rows[-1]["perplexity"],
        "full_nll": rows[-1]["nll"],
        "smallest_perplexity": rows[0]["perplexity"],
        "smallest_nll": rows[0]["nll"],
        "max_ece": max(row["ece"] for row in rows),
        "num_budgets": len(rows),
        "num_rows": int((batches.counts > 0).sum()),
        "num_masked_tokens": int(batches.counts.sum()),
        "sequence_length": length,
        "mask_fingerprint": batches.digest,
    }
    for name, other in () if one_cost else curve.baselines.items():
        difference, low, high = autc_difference(curve, other, COST)
        summary |= {
            f"autc_minus_{name}": difference,
            f"autc_minus_{name}_low": low,
            f"autc_minus_{name}_high": high,
        }
    return summary


def _table(rows: list[dict[str, Any]]) -> str:
    latencies = [name for name in ("latency_ms", "latency_ms_batch_32") if name in rows[0]]
    header = ["budget", "parameters", "FLOPs/token", "NLL", "perplexity", "accuracy", "ECE"]
    header += [{"latency_ms": "ms (batch 1)", "latency_ms_batch_32": "ms (batch 32)"}[name] for name in latencies]
    body = []
    for row in rows:
        interval = "" if row["nll_low"] is None else f" [{row['nll_low']:.3f}, {row['nll_high']:.3f}]"
        body.append(
            [
                row["level"],
                f"{row['parameters']:,}",
                f"{row[COST]:,}",
                f"{row['nll']:.3f}{interval}",
                f"{row['perplexity']:.2f}",
                f"{row['accuracy']:.3f}",
                f"{row['ece']:.3f}",
                *(f"{row[name]:.2f}" for name in latencies),
            ]
        )
    return format_rows(header, body)
