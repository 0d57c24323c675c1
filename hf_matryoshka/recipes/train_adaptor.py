"""Training an adaptor from cached vectors: unsupervised, then supervised where there are labels."""

import copy
import hashlib
import json
import logging
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import EarlyStoppingCallback
from transformers.trainer_utils import get_last_checkpoint

from ..data.adaptor_batches import AdaptorCollator, AnchorSet, document_anchors, labelled_anchors, sample_anchors
from ..data.files import ensure_writable_folder, write_beside
from ..modeling import MatryoshkaAdaptorModel
from ..surgery.adaptor_init import create_adaptor
from ..trainers.adaptor_arguments import AdaptorTrainingArguments
from ..trainers.adaptor_trainer import AdaptorTrainer
from .adaptor_recipe import OBJECTIVES, AdaptorRecipe
from .adaptor_validation import HeldOut, hold_out
from .adaptor_vectors import AdaptorVectors


logger = logging.getLogger(__name__)

# Learning rates and lengths of the two stages; a `training` argument overrides them in both.
STAGE_DEFAULTS = {
    "unsupervised": {"learning_rate": 3e-3, "projection_learning_rate": 1e-3, "anchor_weight": 1.0},
    "supervised": {"learning_rate": 1e-3, "projection_learning_rate": 1e-3, "anchor_weight": 0.5},
}


@dataclass
class TrainedAdaptor:
    """An adaptor and how it came about.

    Args:
        model ([`MatryoshkaAdaptorModel`]): The adaptor, in evaluation mode.
        report (`dict`): For each stage its steps, seconds, and validation metrics before and after.
        after_stage (`dict[str, MatryoshkaAdaptorModel]`): The adaptor as each stage left it.
    """

    model: MatryoshkaAdaptorModel
    report: dict[str, Any]
    after_stage: dict[str, MatryoshkaAdaptorModel]


def train_adaptor(
    vectors: AdaptorVectors,
    output_dir: str | Path,
    recipe: AdaptorRecipe | None = None,
    *,
    training: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> TrainedAdaptor:
    """Trains an adaptor; an interrupted call with the same arguments goes on where it stopped.

    Stages: `unsupervised` on documents and pseudo-queries, then `supervised` with the labelled queries added, where
    there are any and the recipe does not switch it off. Each stage is run with documents held out to find the number
    of steps, and then (`recipe.refit`) once more on everything for that many steps. A stage that does not beat its
    starting point on the held-out documents is dropped.

    Args:
        vectors ([`AdaptorVectors`]):
            What to train on.
        output_dir (`str` or `Path`):
            Gets `model/` (the adaptor), `training.json` (the report) and the checkpoints of the stages.
        recipe ([`AdaptorRecipe`], *optional*):
            What to do.
        training (`dict`, *optional*):
            Further [`AdaptorTrainingArguments`], for both stages.
        overwrite (`bool`, *optional*, defaults to `False`):
            Whether to delete another run that lies in `output_dir`.

    Returns:
        [`TrainedAdaptor`].

    Raises:
        ValueError: If an argument has no valid value or `output_dir` holds another run.
        OSError: If `output_dir` cannot be written.
    """
    recipe, training = recipe or AdaptorRecipe(), dict(training or {})
    folder = _open_run(Path(output_dir), _run_key(vectors, recipe, training), overwrite)
    stages = ["unsupervised"] + ["supervised"] * (recipe.supervised and vectors.queries is not None)
    _arguments(folder, stages[-1], 1, recipe, training)  # a bad argument is refused before any work
    held_out = hold_out(vectors, recipe.validation_fraction, recipe.seed) if recipe.validation_fraction else None

    report: dict[str, Any] = {"recipe": asdict(recipe), "training": training, "stages": {}}
    model = searched = None
    after_stage: dict[str, MatryoshkaAdaptorModel] = {}
    for stage in stages:
        supervised = stage == "supervised"
        steps = recipe.supervised_steps if supervised else recipe.unsupervised_steps
        result: dict[str, Any] = {}
        if held_out is not None:
            start = searched or _initial(held_out.train, recipe)
            searched, result = _run_stage(start, held_out.train, folder, stage, steps, recipe, training, held_out)
            steps = result["best_step"]
        if held_out is None or recipe.refit:
            start = model or _initial(vectors, recipe)
            name = stage if held_out is None else f"{stage}-refit"
            model, refit = _run_stage(start, vectors, folder, name, steps, recipe, training) if steps else (start, {})
            result["refit"] = refit
        else:
            model = searched
        report["stages"][stage] = result
        model.config.base_model = vectors.base_model
        after_stage[stage] = copy.deepcopy(model).eval()
    shutil.rmtree(folder / "model", ignore_errors=True)
    with write_beside(folder / "model") as temporary:
        model.save_pretrained(temporary)
    with write_beside(folder / "training.json") as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return TrainedAdaptor(model.eval(), report, after_stage)


def _run_key(vectors: AdaptorVectors, recipe: AdaptorRecipe, training: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps([asdict(recipe), training], sort_keys=True, default=str).encode())
    for item in (vectors.titles, vectors.sentences, vectors.queries):
        if item is not None:
            digest.update(np.ascontiguousarray(item.vectors).data)
            digest.update(json.dumps([sorted(grades.items()) for grades in item.relevance]).encode())
        digest.update(b"|")
    digest.update(vectors.corpus.data)
    return digest.hexdigest()


def _open_run(folder: Path, key: str, overwrite: bool) -> Path:
    """The folder of a run, new or to be continued."""
    mark = folder / "run.json"
    if folder.is_dir() and os.listdir(folder):
        same = mark.is_file() and json.loads(mark.read_text(encoding="utf-8")).get("key") == key
        if not same and not overwrite:
            raise ValueError(
                f"{folder} holds other files or a run with other data or options; name another folder or overwrite it"
            )
        if not same:
            shutil.rmtree(folder)
    ensure_writable_folder(folder)
    with write_beside(mark) as temporary:
        temporary.write_text(json.dumps({"key": key}) + "\n", encoding="utf-8")
    return folder


def _initial(vectors: AdaptorVectors, recipe: AdaptorRecipe) -> MatryoshkaAdaptorModel:
    config = {"matryoshka_dims": recipe.matryoshka_dims, "intermediate_size": recipe.intermediate_size}
    return create_adaptor(
        vectors.corpus,
        kind=recipe.kind,
        init=recipe.init,
        seed=recipe.seed,
        num_reflections=recipe.num_reflections,
        **config,
    )


def _anchor_sets(vectors: AdaptorVectors, supervised: bool, recipe: AdaptorRecipe) -> list[AnchorSet]:
    sets = [document_anchors(vectors.corpus, recipe.document_share)]
    pseudo = [(vectors.titles, recipe.title_share), (vectors.sentences, recipe.sentence_share)]
    sets += [
        labelled_anchors(found.vectors, found.relevance, recipe.pseudo_label_weight, share)
        for found, share in pseudo
        if found is not None
    ]
    sets = [item for item in sets if item.share > 0]
    if not sets:  # shares that leave only what this corpus lacks
        sets = [document_anchors(vectors.corpus)]
    if supervised and vectors.queries is not None and recipe.query_share:
        # The share of the queries is of all anchors, whatever the others add up to.
        total = sum(item.share for item in sets)
        share = total * recipe.query_share / (1 - recipe.query_share) if recipe.query_share < 1 else 1e9 * total
        sets.append(labelled_anchors(vectors.queries.vectors, vectors.queries.relevance, recipe.label_weight, share))
    return sets


def _arguments(
    folder: Path, name: str, steps: int, recipe: AdaptorRecipe, training: dict[str, Any], metric: str | None = None
) -> AdaptorTrainingArguments:
    stage = name.removesuffix("-refit")
    interval = max(1, steps // recipe.evaluations)
    settings = {
        "max_steps": steps,
        "lr_scheduler_type": "cosine",
        "warmup_steps": min(30, steps // 10),
        "weight_decay": 0.0,
        "logging_steps": interval,
        "save_steps": interval,
        "save_total_limit": 2,
        "dataloader_pin_memory": False,
        "seed": recipe.seed,
        **STAGE_DEFAULTS[stage],
        **OBJECTIVES[recipe.objective][stage],
        **training,
        "output_dir": str(folder / name),
        "save_strategy": "steps",
    }
    if metric is not None:
        settings |= {
            "eval_strategy": "steps",
            "eval_steps": settings["save_steps"],
            "load_best_model_at_end": True,
            "metric_for_best_model": f"eval_{metric}",
            "greater_is_better": True,
        }
    return AdaptorTrainingArguments(**settings)


def _run_stage(
    model: MatryoshkaAdaptorModel,
    vectors: AdaptorVectors,
    folder: Path,
    name: str,
    steps: int,
    recipe: AdaptorRecipe,
    training: dict[str, Any],
    held_out: HeldOut | None = None,
) -> tuple[MatryoshkaAdaptorModel, dict[str, Any]]:
    """One run of the trainer, or its stored result; with `held_out` the best of its checkpoints and of its start."""
    finished = folder / name / "finished"
    if finished.is_dir():
        result = json.loads((finished / "result.json").read_text(encoding="utf-8"))
        return MatryoshkaAdaptorModel.from_pretrained(finished), result
    supervised = name.startswith("supervised")
    sets = _anchor_sets(vectors, supervised, recipe)
    evaluation, measure, before = {}, None, {}
    if held_out is not None:
        measure = held_out.level_metrics(supervised)
        before = measure(model.eval())
        label_weight = recipe.label_weight if supervised else recipe.pseudo_label_weight
        held_sets = held_out.anchor_sets(supervised, label_weight)
        evaluation = {
            "eval_dataset": sample_anchors(held_sets, sum(map(len, held_sets)), recipe.seed),
            "eval_collator": _collator(held_out.corpus, held_sets, recipe),
            "level_metrics": measure,
            "callbacks": [EarlyStoppingCallback(recipe.patience)],
        }
    metric = next(iter(before), None)
    args = _arguments(folder, name, steps, recipe, training, metric)
    start = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    trainer = AdaptorTrainer(
        model=model,
        args=args,
        data_collator=_collator(vectors.corpus, sets, recipe),
        train_dataset=sample_anchors(sets, args.max_steps * batch, recipe.seed),
        **evaluation,
    )
    began = time.time()
    checkpoint = get_last_checkpoint(args.output_dir) if Path(args.output_dir).is_dir() else None
    trainer.train(resume_from_checkpoint=checkpoint)
    result = {"best_step": steps, "steps": trainer.state.global_step, "seconds": round(time.time() - began, 1)}
    if measure is not None:
        after = measure(model.eval())
        if after[metric] <= before[metric]:
            logger.warning(
                "stage %r does not improve %s on the held-out documents (%.4f after, %.4f before), so it is dropped",
                name,
                metric,
                after[metric],
                before[metric],
            )
            model.load_state_dict(start)
            after, result["best_step"] = before, 0
        else:
            result["best_step"] = trainer.state.best_global_step
        result |= {"before": before, "after": after}
    with write_beside(finished) as temporary:
        model.save_pretrained(temporary)
        (temporary / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return model, result


def _collator(corpus: np.ndarray, sets: list[AnchorSet], recipe: AdaptorRecipe) -> AdaptorCollator:
    return AdaptorCollator(
        corpus,
        sets,
        num_neighbours=recipe.num_neighbours,
        neighbours_per_anchor=recipe.neighbours_per_anchor,
        random_candidates=recipe.random_candidates,
        seed=recipe.seed,
    )
