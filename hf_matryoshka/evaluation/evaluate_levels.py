"""MTEB at every level of a model, with one full-width encode, beside the baselines."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from mteb.abstasks.abstask import AbsTask
from sentence_transformers import SentenceTransformer
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..data.base_models import load_base_model
from ..modeling.modeling_matryoshka_adaptor import MatryoshkaAdaptorModel
from ..modeling.modeling_matryoshka_funnel import MatryoshkaFunnelModel
from .baselines import BASELINES, Baseline, fit_baselines
from .cost import index_memory_mb
from .curve import Curve, LevelPoint
from .levels import LevelView, adaptor_view, custom_view, own_dims, prefix_view, split_at_levels
from .mteb_encoder import CachedLevelEncoder, FullWidthEncoder, LevelTransform, content_revision
from .mteb_scores import run_task
from .mteb_tasks import get_mteb_task


def evaluate_levels(
    model: SentenceTransformer | str | os.PathLike,
    tasks: str | AbsTask | Sequence[str | AbsTask],
    *,
    adaptor: MatryoshkaAdaptorModel | MatryoshkaFunnelModel | None = None,
    levels: Sequence[int | str] | None = None,
    encoder_level: int | str | None = None,
    transform: LevelTransform | None = None,
    baselines: bool | Sequence[str] = True,
    split: str | None = None,
    name: str = "hf-matryoshka/model",
    system: str = "ours",
    cache_dir: str | os.PathLike | None = None,
    results_dir: str | os.PathLike | None = None,
    num_vectors: int | None = None,
    latency_repeats: int = 30,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = True,
) -> Curve | dict[str, Curve]:
    """Score every level of a model on MTEB tasks. Each text is encoded once, whatever the number of levels.

    Args:
        model (`SentenceTransformer`, `str` or `os.PathLike`): A model that carries an adaptor, a funnel (its latents
            are scored) or a truncation module, or the base of `adaptor` or `transform`, or a model whose own training
            nested its prefixes (give `levels`, unless it is a Matryoshka Mamba, which knows them).
        tasks (`str`, `AbsTask` or a `Sequence` of them): Names of MTEB tasks, or task objects, also those of
            [`~evaluation.mteb_tasks.retrieval_task`] over local data.
        adaptor ([`~modeling.MatryoshkaAdaptorModel`] or [`~modeling.MatryoshkaFunnelModel`], *optional*): Maps the
            model's vectors to the levels.
        levels (`Sequence[int | str]`, *optional*): Which levels, by name or index, or by width where there is no
            adaptor; by default all that the model's module has.
        encoder_level (`int` or `str`, *optional*): Level of a nested encoder that encodes the texts, the largest by
            default: the second axis, one call a level.
        transform (`Callable`, *optional*): Any other map, `transform(vectors, level)`; needs `levels`.
        baselines (`bool` or `Sequence[str]`, *optional*, defaults to `True`): Which of
            `~evaluation.baselines.BASELINES` to score at the same widths, fitted on the task's documents.
        split (`str`, *optional*): The split; by default the task's `"test"`, or its first.
        name (`str`, *optional*, defaults to `"hf-matryoshka/model"`): Name in MTEB's results, `organisation/model`.
        system (`str`, *optional*, defaults to `"ours"`): Name in the curve.
        cache_dir (`str` or `os.PathLike`, *optional*): Folder that keeps full-width vectors over runs.
        results_dir (`str` or `os.PathLike`, *optional*): Folder for MTEB's result files; none are written by default.
        num_vectors (`int`, *optional*): Size of an index; adds `memory_mb` to the costs.
        latency_repeats (`int`, *optional*, defaults to 30): Timed forwards of each adaptor level; 0 measures none.
        batch_size (`int`, *optional*, defaults to 32): Texts a batch.
        seed (`int`, *optional*, defaults to 0): Seed of the baselines with chance.
        progress (`bool`, *optional*, defaults to `True`): Whether to show progress bars.

    Returns:
        [`Curve`] for one task, `dict[str, Curve]` by task name for a sequence of them. Its `baselines` hold theirs.

    Raises:
        ValueError: If a task, split, level or baseline does not exist, or no levels are known.
        OSError: If the data of a task is neither here nor can be fetched.
    """
    wanted = list(BASELINES) if baselines is True else list(baselines or ())
    for wish in wanted:
        if wish not in BASELINES:
            raise ValueError(f"baseline {wish!r} does not exist; choose among {', '.join(BASELINES)}")
    single = isinstance(tasks, (str, AbsTask))
    asked = [tasks] if isinstance(tasks, (str, AbsTask)) else tasks
    todo = [get_mteb_task(task) if isinstance(task, str) else task for task in asked]
    splits = [_choose_split(task, split) for task in todo]
    if isinstance(model, (str, os.PathLike)):
        model = load_base_model(os.fspath(model))
    if encoder_level is not None:
        encoder_level = _encoder_level(model, encoder_level)
    base, view = _level_view(model, adaptor, levels, transform, encoder_level)
    if baselines is True and view.nested_by_training:
        wanted.remove("truncation")  # it is the model itself
    for task in todo:
        _load(task)
    encoder = FullWidthEncoder(
        base, cache_dir=cache_dir, batch_size=batch_size, progress=progress, level=encoder_level
    )
    costs = {
        level: view.cost(level, num_vectors=num_vectors, latency_repeats=latency_repeats) for level in view.levels
    }
    results_dir = None if results_dir is None else Path(results_dir)
    curves = {}
    with tqdm(
        total=len(todo) * len(view.levels) * (1 + len(wanted)), desc="Evaluating levels", disable=not progress
    ) as bar:
        for task, part in zip(todo, splits, strict=True):
            run = _Run(encoder, view, task, part, results_dir, bar)
            documents: list[np.ndarray] = []
            curve = run.score(_System(system, name, view.transform, view.transform, costs), documents)
            fitted = fit_baselines(np.concatenate(documents), wanted, seed) if wanted else {}
            for label, baseline in fitted.items():
                curve.baselines[label] = run.score(_baseline_system(baseline, f"{name}-{label}", view, num_vectors))
            curves[task.metadata.name] = curve
    return next(iter(curves.values())) if single else curves


@dataclass(frozen=True)
class _System:
    label: str
    name: str
    document: LevelTransform
    query: LevelTransform
    costs: dict[str, dict[str, float]]


@dataclass(frozen=True)
class _Run:
    """A task, and where every system of it is scored alike."""

    encoder: FullWidthEncoder
    view: LevelView
    task: AbsTask
    split: str
    results_dir: Path | None
    bar: tqdm

    def score(self, system: _System, documents: list[np.ndarray] | None = None) -> Curve:
        """The curve of a system; `documents` receives the full-width vectors of the task's documents."""
        revision = content_revision(self.encoder, [system.document, system.query], self.view.levels)
        points = []
        for level, dim in zip(self.view.levels, self.view.dims, strict=True):
            first = level == self.view.levels[0]
            level_encoder = CachedLevelEncoder(
                self.encoder,
                _recording(system.document, documents) if first and documents is not None else system.document,
                level,
                name=system.name,
                embed_dim=dim,
                revision=revision,
                query_transform=system.query,
            )
            found = run_task(level_encoder, self.task, self.split, self.results_dir)
            cost = dict(system.costs[level])
            points.append(LevelPoint(level, dim, found.score, found.low, found.high, cost, found.per_example))
            self.bar.update()
        return Curve(points, self.task.metadata.main_score, self.split, system.label)


def _recording(transform: LevelTransform, documents: list[np.ndarray]) -> LevelTransform:
    def record(vectors: np.ndarray, level: int | str) -> np.ndarray:
        documents.append(vectors)
        return transform(vectors, level)

    return record


def _baseline_system(baseline: Baseline, name: str, view: LevelView, num_vectors: int | None) -> _System:
    dims = dict(zip(view.levels, view.dims, strict=True))
    costs: dict[str, dict[str, float]] = {}
    for level, dim in dims.items():
        costs[level] = {"bytes_per_vector": baseline.bytes_per_vector(dim)}
        if num_vectors is not None:
            costs[level]["memory_mb"] = index_memory_mb(baseline.bytes_per_vector(dim), num_vectors)
    return _System(
        baseline.name,
        name,
        lambda vectors, level: baseline.transform(vectors, dims[str(level)], "document"),
        lambda vectors, level: baseline.transform(vectors, dims[str(level)], "query"),
        costs,
    )


def _encoder_level(model: SentenceTransformer, level: int | str) -> str:
    """Name of a level of a model's encoder; raises `ValueError` if it does not exist."""
    if "level" not in model.get_model_kwargs():
        raise ValueError(f"encoder_level is {level!r}, but the encoder of this model has no levels")
    encoder: Any = model[0]
    return encoder.model.config.level_name(level)


def _width(model: SentenceTransformer) -> int:
    width = model.get_embedding_dimension()
    assert width is not None  # of a model that embeds
    return width


def _level_view(
    model: SentenceTransformer,
    adaptor: MatryoshkaAdaptorModel | MatryoshkaFunnelModel | None,
    levels: Sequence[int | str] | None,
    transform: LevelTransform | None,
    encoder_level: str | None,
) -> tuple[SentenceTransformer, LevelView]:
    if adaptor is not None and transform is not None:
        raise ValueError("give adaptor or transform, not both")
    if transform is not None:
        if not levels:
            raise ValueError("transform needs levels, the list of those to evaluate")
        return model, custom_view(transform, _width(model), levels)
    if adaptor is None:
        dims = own_dims(model)
        model, module = split_at_levels(model)
        if module is None or not isinstance(module, PreTrainedModel):
            if not (levels or dims):
                raise ValueError("the model carries no adaptor: give adaptor, or levels to evaluate its own prefixes")
            width = _width(model)
            if encoder_level is not None:
                # A level with a narrower residual stream gives narrower embeddings.
                width = model.encode("", level=encoder_level, show_progress_bar=False).shape[-1]
            return model, prefix_view(width, levels or [dim for dim in dims or () if dim <= width])
        adaptor = cast(MatryoshkaAdaptorModel | MatryoshkaFunnelModel, module)
    if adaptor.config.embedding_dim != model.get_embedding_dimension():
        raise ValueError(
            f"the adaptor takes vectors of width {adaptor.config.embedding_dim}, "
            f"but the model gives width {model.get_embedding_dimension()}"
        )
    return model, adaptor_view(adaptor, levels)


def _choose_split(task: AbsTask, split: str | None) -> str:
    known = list(task.eval_splits)
    if split is None:
        return "test" if "test" in known else known[0]
    if split not in known:
        raise ValueError(f"split {split!r} does not exist in {task.metadata.name}; choose one of {', '.join(known)}")
    return split


def _load(task: AbsTask) -> None:
    if task.data_loaded:
        return
    try:
        task.load_data()
    except OSError as error:
        raise OSError(
            f"the data of the mteb task {task.metadata.name} is not here and the Hub did not give it; offline, use "
            "hf_matryoshka.evaluation.mteb_tasks to put local files behind the task"
        ) from error
