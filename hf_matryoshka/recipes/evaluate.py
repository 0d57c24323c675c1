"""Evaluating whatever a user has: an exported repo, a trained adaptor or funnel, or a plain embedding model."""

from collections.abc import Sequence
from pathlib import Path

import mteb
import numpy as np
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel

from ..data.base_models import load_base_model
from ..data.beir import load_beir
from ..data.convention_encoders import load_encoder
from ..data.retrieval import RetrievalDataset
from ..data.splits import unseen_queries
from ..evaluation.curve import Curve
from ..evaluation.evaluate_levels import evaluate_levels
from ..evaluation.levels import own_dims, split_at_levels
from ..evaluation.mteb_tasks import classification_task, retrieval_task, sts_task
from ..evaluation.plot import plot_curves
from ..evaluation.report import write_report
from ..hub.family import load_family
from ..hub.trained_folder import load_vector_model
from ..modeling import MatryoshkaFunnelModel
from ..modeling.levels import default_matryoshka_dims


def evaluate_model(
    model: str,
    *,
    beir: Sequence[Path] = (),
    sts: Path | None = None,
    classification: Path | None = None,
    tasks: Sequence[str] = (),
    base_model: str | None = None,
    dims: Sequence[int] | None = None,
    split: str | None = None,
    baselines: bool = True,
    num_vectors: int | None = None,
    trust_remote_code: bool = False,
    encoder_level: str | None = None,
) -> dict[str, Curve]:
    """Curves of a model, by task; retrieval data whose training split shares documents gives `<task> (unseen)` too.

    Args:
        model (`str`): A folder or a Hub id.
        beir (`Sequence[Path]`): Retrieval data sets in BEIR format. One named as a task of MTEB, in any case, is put
            behind that task.
        sts, classification (`Path`, *optional*): Folders for STSBenchmark and for Banking77Classification.
        tasks (`Sequence[str]`): Names of further tasks of MTEB.
        base_model (`str`, *optional*): Base of an adaptor or a funnel; by default the one it was trained on.
        dims (`Sequence[int]`, *optional*): Widths; by default all levels of the model, or log-spaced prefixes of one
            without levels.
        split (`str`, *optional*): Split of the data; `"test"` by default.
        baselines (`bool`, *optional*, defaults to `True`): Whether to score the baselines.
        num_vectors (`int`, *optional*): Size of an index, for its memory.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Whether to run the repo's code.
        encoder_level (`str`, *optional*): Level of a nested encoder; the largest by default.

    Raises:
        ValueError, OSError: See [`evaluate_levels`].
    """
    sources = {path: load_beir(path) for path in beir}
    names = {name.lower(): name for name in (task.metadata.name for task in mteb.get_tasks(task_types=["Retrieval"]))}
    todo = [
        retrieval_task(names.get(dataset.name.lower(), dataset.name), dataset, split or "test")
        for dataset in sources.values()
    ]
    if sts is not None:
        todo.append(sts_task("STSBenchmark", sts, split or "test"))
    if classification is not None:
        todo.append(classification_task("Banking77Classification", classification, split or "test"))
    todo += list(tasks)

    adaptor = None
    if Path(model).is_dir() and not (Path(model) / "modules.json").is_file():
        adaptor = load_vector_model(model)
        base_model = base_model or adaptor.config.base_model
        if base_model is None:
            raise ValueError(f"{model} does not say which model made its embeddings; give base_model")
        encoder = load_base_of(adaptor, base_model)
    else:
        encoder = load_base_model(model, trust_remote_code=trust_remote_code)
    levels = None if dims is None else [f"d{dim}" for dim in dims]
    if adaptor is None and split_at_levels(encoder)[1] is None:
        width = encoder.get_embedding_dimension()
        # A stock level is what it is; any other model is measured at its prefixes.
        known = own_dims(encoder) or ([width] if _is_exported(model) else default_matryoshka_dims(width))
        levels = dims or known
    curves = evaluate_levels(
        encoder,
        todo,
        adaptor=adaptor,
        levels=levels,
        encoder_level=encoder_level,
        baselines=baselines,
        split=split,
        num_vectors=num_vectors,
    )
    for task, dataset in zip(todo, sources.values(), strict=False):
        rows = _unseen_rows(dataset, split or "test")
        if rows is not None:
            name = task.metadata.name
            curves[f"{name} (unseen)"] = curves[name].subset(rows, f"{curves[name].split}_unseen")
    return curves


def load_base_of(model: PreTrainedModel, name_or_path: str | Path) -> SentenceTransformer:
    """The base model of an adaptor or a funnel, which embeds by the convention of the funnel.

    Raises:
        ValueError, OSError: See [`load_encoder`].
    """
    convention = model.config.embedding_convention if isinstance(model, MatryoshkaFunnelModel) else None
    return load_encoder(name_or_path, convention)


def _is_exported(model: str) -> bool:
    """Whether a folder or a Hub id is a repo of a family."""
    try:
        load_family(model)
    except (OSError, ValueError):
        return False
    return True


def _unseen_rows(dataset: RetrievalDataset, split: str) -> np.ndarray | None:
    """Rows (by sorted id) of the queries whose documents training has not seen; `None` if all or none are."""
    if "train" not in dataset.qrels or split == "train":
        return None
    queries = sorted(dataset.qrels[split])
    unseen = set(unseen_queries(dataset.qrels["train"], dataset.qrels[split]))
    rows = np.array([row for row, query in enumerate(queries) if query in unseen], dtype=np.int64)
    return rows if 0 < len(rows) < len(queries) else None


def write_evaluation(curves: dict[str, Curve], folder: str | Path) -> None:
    """Writes `<task>.json` and `<task>.png` for each curve, and all rows as `results.json`."""
    folder = Path(folder)
    rows = []
    for name, curve in curves.items():
        stem = name.replace(" (", "_").rstrip(")")
        curve.to_json(folder / f"{stem}.json")
        plot_curves([curve], folder / f"{stem}.png", title=name)
        rows += curve.rows(task=name)
    write_report(folder / "results.json", "evaluate", rows)
