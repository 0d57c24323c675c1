"""Model cards of exported repos."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from .. import hub_cards
from ..evaluation.certificate import Certificate
from ..evaluation.curve import Curve
from ..evaluation.plot import plot_curves
from .card_metadata import card_metadata
from .card_tables import certificate_section, family_table, quality_tables, sibling_placeholder
from .eval_results import EVAL_RESULTS_FOLDER, eval_result_files, repo_scores
from .manifest import FULL, FamilyLevel, Manifest


if TYPE_CHECKING:
    from .onnx_export import OnnxExport

TEMPLATES = Path(hub_cards.__file__).parent
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
        plot (`str` or `Path`, *optional*): PNG of the curves; by default one is drawn of the first.
        tags (`Sequence[str]`, *optional*): Further tags.
        datasets (`Sequence[str]`, *optional*): Hub ids of the training data.
        training_data (`str`, *optional*): A sentence about the training data.
        language (`str` or `Sequence[str]`, *optional*): Language codes, for example `"en"`.
        eval_dataset (`str`, *optional*): Hub id of the data set that the curves were measured on. With it the scores
            are also written to `.eval_results/`, from where the Hub shows them beside those of other models.
        eval_name (`str`, *optional*): Name of that data set, for example `"SciFact"`; by default the last part of
            `eval_dataset`.
        eval_task (`str`, *optional*): Task id of the Hub that it is about, for example `"text-retrieval"`; by default
            that of the model.
        limits (`Sequence[str]`, *optional*): Further sentences about what the model cannot do.
        certificate ([`Certificate`], *optional*): What [`certify_run`] found; it also goes into the manifest.

    Raises:
        ValueError: If the Hub would refuse an id, or a text is given in place of a list.
    """

    base_model: str | None = None
    license: str | None = None
    curves: Sequence[Curve] = ()
    plot: str | Path | None = None
    tags: Sequence[str] = ()
    datasets: Sequence[str] = ()
    training_data: str | None = None
    language: str | Sequence[str] | None = None
    eval_dataset: str | None = None
    eval_name: str | None = None
    eval_task: str | None = None
    limits: Sequence[str] = ()
    certificate: Certificate | None = None

    def __post_init__(self):
        for field in ("tags", "datasets", "limits"):
            if isinstance(getattr(self, field), str):
                raise ValueError(f"{field} must be a list, but is {getattr(self, field)!r}; put it into brackets")
        named = [("base_model", self.base_model), ("eval_dataset", self.eval_dataset)]
        for field, repo_id in [*named, *(("datasets", repo_id) for repo_id in self.datasets)]:
            try:
                validate_repo_id("name" if repo_id is None else repo_id)
            except HFValidationError as error:
                raise ValueError(
                    f"{field} must be an id of the Hub such as 'user/name', but is {repo_id!r}"
                ) from error

    @property
    def eval_title(self) -> str | None:
        """Name of the data set that the curves were measured on, if it is known."""
        return self.eval_name or (self.eval_dataset and self.eval_dataset.rpartition("/")[2])


@dataclass(frozen=True)
class CardFacts:
    """What the exporter knows about a repo.

    Args:
        manifest ([`Manifest`]): That of the repo.
        template (`str`): File name of the template, for example `"adaptor.md"`.
        fields (`dict[str, Any]`): What this template says about its architecture; it lists them itself.
        details ([`CardDetails`]): What was told.
        sharded (`bool`, *optional*, defaults to `False`): Whether the weights are saved as one shard a level.
        onnx ([`OnnxExport`], *optional*): The graphs in `onnx/`.
    """

    manifest: Manifest
    template: str
    fields: dict[str, Any]
    details: CardDetails
    sharded: bool = False
    onnx: "OnnxExport | None" = None


def write_card(folder: str | Path, facts: CardFacts) -> None:
    """Write README.md, its plot and `.eval_results/` into a repo.

    Args:
        folder (`str` or `Path`): The repo.
        facts ([`CardFacts`]): What to say. The ids of the repos are placeholders, see [`fill_repo_ids`].
    """
    folder, details = Path(folder), facts.details
    if details.plot is not None:
        shutil.copyfile(details.plot, folder / PLOT_FILE)
    elif details.curves:
        plot_curves([_with_costs(details.curves[0], facts.manifest)], folder / PLOT_FILE)
    (folder / "README.md").write_text(_card_text(facts), encoding="utf-8", newline="\n")
    if details.eval_dataset is None:
        return
    scores = repo_scores(facts.manifest)
    files = eval_result_files(scores, dataset_id=details.eval_dataset, name=details.eval_title or details.eval_dataset)
    for name, text in files.items():
        (folder / EVAL_RESULTS_FOLDER).mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def fill_repo_ids(text: str, ids: Mapping[str, str], this: str) -> str:
    """Put the ids of a family's repos into the card of one of them.

    Args:
        text (`str`): The card as [`write_card`] wrote it.
        ids (`Mapping[str, str]`): Hub id of each repo, for example `{"full": "me/x", "d16": "me/x-d16"}`.
        this (`str`): Name of the repo that the card is of.
    """
    for name, repo_id in ids.items():
        text = text.replace(f"]({sibling_placeholder(name)})", f"](https://huggingface.co/{repo_id})")
    return text.replace(UNKNOWN_MODEL_ID, ids[this])


def _card_text(facts: CardFacts) -> str:
    manifest, details, repo = facts.manifest, facts.details, facts.manifest.repo
    level = None if manifest.this == FULL else manifest.level(manifest.this)
    siblings = {entry.name: entry for entry in manifest.repos if entry.name != manifest.this}
    measured = {(score.metric, score.split) for score in repo_scores(manifest)}
    tables = quality_tables(details.curves, None if level is None else level.name)
    base = details.base_model and details.base_model.rpartition("/")[2]
    title = f"{base} matryoshka" if base else manifest.model_type.replace("_", "-")
    title += f", {_size(level)}" if level else ""
    card = ModelCard.from_template(
        card_metadata(facts, title),
        template_str=_template(facts.template),
        title=title,
        model_id=UNKNOWN_MODEL_ID,
        level=level and level.name,
        dims=[manifest.level(entry).dim for entry in repo.levels],
        repo=repo,
        model_type=manifest.model_type,
        full=_link(FULL) if FULL in siblings else None,
        siblings=[_link(entry) for entry in siblings if entry != FULL],
        stock_siblings=[_link(entry) for entry in siblings if siblings[entry].stock],
        family=family_table(manifest),
        # One system alone says nothing that the table of the family does not.
        tables=[
            table for table in tables if len(table["systems"]) > 1 or (table["metric"], table["split"]) not in measured
        ],
        measured=bool(measured or tables),
        plot=PLOT_FILE if details.plot or details.curves else None,
        details=details,
        sharded=facts.sharded and len(repo.levels) > 1,
        onnx=facts.onnx,
        certificate=manifest.certificate,
        certified=certificate_section(manifest),
        **facts.fields,
    )
    text = re.sub(r"[ \t]+$", "", str(card), flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _with_costs(curve: Curve, manifest: Manifest) -> Curve:
    """A curve whose points also know what the manifest says: levels without widths are drawn against their cost."""
    costs = {level.name: level.cost for level in manifest.levels}
    return replace(
        curve,
        points=[replace(point, cost={**costs.get(point.level, {}), **point.cost}) for point in curve.points],
        baselines={name: _with_costs(baseline, manifest) for name, baseline in curve.baselines.items()},
    )


def _template(name: str) -> str:
    """A template with the shared sections that it includes: Jinja has no folder to look them up in here."""
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    return re.sub(r'\{% include "([\w.]+)" %\}', lambda found: _template(found[1]), text)


def _size(level: FamilyLevel) -> str:
    # Budgets have, in general, one width.
    by_width = level.dim is not None and level.budget is None
    return f"{level.dim} dimensions" if by_width else f"level {level.name}"


def _link(name: str) -> str:
    return f"[{name}]({sibling_placeholder(name)})"
