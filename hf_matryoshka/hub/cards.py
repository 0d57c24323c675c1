"""Model cards of exported levels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard, ModelCardData

from .. import hub_cards
from ..modeling.modeling_matryoshka_adaptor import MatryoshkaAdaptorModel


if TYPE_CHECKING:
    from ..evaluation.curve import Curve

TEMPLATE = Path(hub_cards.__file__).parent / "adaptor.md"
PLOT_FILE = "curve.png"
# What sentence-transformers writes before the name is known; a push replaces it.
UNKNOWN_MODEL_ID = "sentence_transformers_model_id"


@dataclass(frozen=True)
class CardDetails:
    """What a card says beyond what the model itself tells.

    Args:
        base_model (`str`, *optional*): Hub id of the base model.
        license (`str`, *optional*): License id of the Hub, for example `"apache-2.0"`.
        curves (`Sequence[Curve]`, *optional*): Measured curves; their baselines are listed too.
        plot (`str` or `Path`, *optional*): PNG of the curves.
        tags (`Sequence[str]`, *optional*): Further tags.
    """

    base_model: str | None = None
    license: str | None = None
    curves: Sequence["Curve"] = ()
    plot: str | Path | None = None
    tags: Sequence[str] = ()


def adaptor_card(
    model: MatryoshkaAdaptorModel,
    level: str | None,
    *,
    stock: bool,
    with_base: bool,
    max_difference: float,
    details: CardDetails | None = None,
) -> ModelCard:
    """Card of one level, or of the whole family.

    Args:
        model ([`MatryoshkaAdaptorModel`]): The trained adaptor with all its levels.
        level (`str` or `None`): The level; `None` for the repo that holds all.
        stock (`bool`): Whether the repo is made of stock modules.
        with_base (`bool`): Whether the repo holds the base model.
        max_difference (`float`): What [`check_export`] measured.
        details ([`CardDetails`], *optional*): The rest.

    Returns:
        `ModelCard`: The card; its model id is `UNKNOWN_MODEL_ID` until a push.
    """
    config, details = model.config, details or CardDetails()
    dim = config.level_dim(level)
    name = details.base_model.rpartition("/")[2] if details.base_model else "embeddings"
    data = ModelCardData(
        base_model=details.base_model,
        # A repo without the base weights is an adapter to the Hub.
        base_model_relation=("finetune" if with_base else "adapter") if details.base_model else None,
        library_name="sentence-transformers" if with_base else "transformers",
        license=details.license,
        pipeline_tag="sentence-similarity" if with_base else "feature-extraction",
        tags=[
            *(["sentence-transformers"] if with_base else []),
            "feature-extraction",
            "matryoshka",
            "matryoshka-adaptor",
            *details.tags,
        ],
    )
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        title=f"{name} matryoshka" + (f", {dim} dimensions" if level else ""),
        model_id=UNKNOWN_MODEL_ID,
        base_model=details.base_model,
        with_base=with_base,
        stock=stock,
        level=level,
        kind=config.kind,
        embedding_dim=config.embedding_dim,
        dim=dim,
        dims=[dim] if stock else config.matryoshka_dims[: config.level_index(level) + 1],
        levels=[{"level": name, "dim": config.level_dim(name), **model.cost(name)} for name in config.levels],
        tables=quality_tables(details.curves, level),
        plot=PLOT_FILE if details.plot else None,
        max_difference=max_difference,
    )


def quality_tables(curves: Sequence["Curve"], level: str | None = None) -> list[dict[str, Any]]:
    """Curves as tables, one for each metric and split: levels as rows (this level in bold), systems as columns."""
    tables: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    intervals = set()
    for row in (row for curve in curves for row in curve.rows()):
        key = (row["metric"], row["split"])
        text = f"{row['value']:.3f}"
        if row["low"] is not None:
            text += f" [{row['low']:.3f}, {row['high']:.3f}]"
            intervals.add(key)
        tables.setdefault(key, {}).setdefault(row["level"], {})[row["system"]] = text
    shown = []
    for (metric, split), by_level in tables.items():
        systems = list(dict.fromkeys(system for values in by_level.values() for system in values))
        rows = []
        for name, values in by_level.items():
            cells = [name, *(values.get(system, "") for system in systems)]
            rows.append([f"**{cell}**" if cell and name == level else cell for cell in cells])
        shown.append(
            {
                "metric": metric,
                "split": split,
                "systems": systems,
                "rows": rows,
                "intervals": (metric, split) in intervals,
            }
        )
    return shown
