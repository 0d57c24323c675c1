"""One stage of adaptor training: its anchors, its arguments, its run and what is kept of it."""

import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import EarlyStoppingCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from ..data.adaptor_batches import AdaptorCollator, AnchorSet, document_anchors, labelled_anchors, sample_anchors
from ..data.files import reading_weights, write_beside
from ..modeling import MatryoshkaAdaptorModel
from ..trainers.adaptor_arguments import AdaptorTrainingArguments
from ..trainers.adaptor_trainer import AdaptorTrainer
from .adaptor_recipe import OBJECTIVES, AdaptorRecipe
from .adaptor_validation import HeldOut, LevelMetrics
from .adaptor_vectors import AdaptorVectors
from .checkpoints import last_checkpoint, training_was_stopped
from .training_progress import show_progress


logger = logging.getLogger(__name__)

# What the stages do not share; a `training` argument overrides them in both.
STAGE_DEFAULTS = {
    "unsupervised": {"learning_rate": 3e-3, "projection_learning_rate": 1e-3, "anchor_weight": 1.0},
    # Labels are few and easily learned by heart: small steps keep what holds for unseen documents.
    "supervised": {"learning_rate": 3e-4, "projection_learning_rate": 3e-4, "anchor_weight": 0.5},
}
# How far the weights may go from the unsupervised to the supervised ones, the farthest first.
SHARES = (1.0, 0.75, 0.5, 0.25)


def anchor_sets(vectors: AdaptorVectors, supervised: bool, recipe: AdaptorRecipe) -> list[AnchorSet]:
    """Documents and pseudo-queries in the recipe's shares, and labelled queries in the supervised stage."""
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


def stage_arguments(
    folder: Path,
    name: str,
    steps: int,
    recipe: AdaptorRecipe,
    training: dict[str, Any],
    *,
    evaluate: bool = False,
    best: str | None = None,
) -> AdaptorTrainingArguments:
    """Arguments of a run; with `best`, a metric's name, it stops early and ends with its best checkpoint."""
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
        # The patience of early stopping goes on where it was.
        "restore_callback_states_from_checkpoint": True,
    }
    if evaluate:
        settings |= {"eval_strategy": "steps", "eval_steps": settings["save_steps"]}
    if best is not None:
        settings |= {
            "load_best_model_at_end": True,
            "metric_for_best_model": f"eval_{best}",
            "greater_is_better": True,
        }
    return AdaptorTrainingArguments(**settings)


def run_stage(
    model: MatryoshkaAdaptorModel,
    vectors: AdaptorVectors,
    folder: Path,
    name: str,
    steps: int,
    recipe: AdaptorRecipe,
    training: dict[str, Any],
    *,
    held_out: HeldOut | None = None,
    share: float = 1.0,
) -> tuple[MatryoshkaAdaptorModel, dict[str, Any]]:
    """One run of the trainer, or its stored result.

    With `held_out`, the unsupervised stage keeps the best of its checkpoints and of its start. The supervised stage
    moves the weights from its start towards its end as far as the held-out documents allow, that is without costing
    them more than `recipe.tolerance` (weight interpolation, WiSE-FT, arXiv 2109.01903): labels also teach what holds
    for their own documents only, which such a validation cannot reward.

    Args:
        model ([`MatryoshkaAdaptorModel`]): Where to start; it is trained in place.
        held_out ([`HeldOut`], *optional*): What to validate on.
        share (`float`, *optional*, defaults to 1.0): How far to move the weights, where that is known already.

    Returns:
        The adaptor, and `best_step`, `share`, `steps`, `seconds` and, validated, the metrics `before` and `after`.
    """
    finished = folder / name / "finished"
    if finished.is_dir():
        result = json.loads((finished / "result.json").read_text(encoding="utf-8"))
        with reading_weights(finished):
            return MatryoshkaAdaptorModel.from_pretrained(finished), result
    supervised = name.startswith("supervised")
    sets = anchor_sets(vectors, supervised, recipe)
    evaluation, measure, before = {}, None, {}
    if held_out is not None:
        measure = held_out.level_metrics(supervised)
        before = measure(model.eval())
        label_weight = recipe.label_weight if supervised else recipe.pseudo_label_weight
        held_sets = held_out.anchor_sets(supervised, label_weight)
        rows = sample_anchors(held_sets, sum(map(len, held_sets)), recipe.seed)
        evaluation = {
            "eval_dataset": rows,
            "eval_collator": _collator(held_out.corpus, held_sets, rows, recipe),
            "level_metrics": measure,
        }
        if not supervised:
            evaluation["callbacks"] = [EarlyStoppingCallback(recipe.patience)]
    metric = next(iter(before), None)
    best = None if supervised else metric
    args = stage_arguments(folder, name, steps, recipe, training, evaluate=measure is not None, best=best)
    start = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    rows = sample_anchors(sets, args.max_steps * batch, recipe.seed)
    trainer = AdaptorTrainer(
        model=model,
        args=args,
        data_collator=_collator(vectors.corpus, sets, rows, recipe),
        train_dataset=rows,
        **evaluation,
    )
    show_progress(trainer, name)
    began = time.time()
    checkpoint = last_checkpoint(args.output_dir)
    if best is not None and checkpoint is not None and training_was_stopped(checkpoint):
        # It was interrupted between its end and here. Without a best checkpoint the last one takes no further step.
        trainer.state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        trainer._load_best_model()
    else:
        trainer.train(resume_from_checkpoint=checkpoint)
    result: dict[str, Any] = {"steps": trainer.state.global_step, "seconds": round(time.time() - began, 1)}
    result |= {"best_step": trainer.state.best_global_step if best else steps, "share": share}
    end = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    if measure is None:
        _blend(model, start, end, share)
    else:
        shares = SHARES if supervised else (1.0,)
        least = before[metric] - (recipe.tolerance if supervised else 0)
        result |= _keep(model, start, end, shares, measure, least) | {"before": before}
        if not result["share"]:
            logger.warning("stage %r does not improve %s on the held-out documents, so it is dropped", name, metric)
    with write_beside(finished) as temporary:
        model.save_pretrained(temporary)
        (temporary / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return model, result


def _keep(
    model: MatryoshkaAdaptorModel,
    start: dict[str, torch.Tensor],
    end: dict[str, torch.Tensor],
    shares: tuple[float, ...],
    measure: LevelMetrics,
    least: float,
) -> dict[str, Any]:
    """Moves the weights by the first share whose first metric exceeds `least`, or not at all."""
    for share in (*shares, 0.0):
        _blend(model, start, end, share)
        after = measure(model.eval())
        if share == 0 or next(iter(after.values())) > least:
            return {"share": share, "after": after}
    raise AssertionError("share 0 is always kept")


@torch.no_grad()
def _blend(
    model: MatryoshkaAdaptorModel, start: dict[str, torch.Tensor], end: dict[str, torch.Tensor], share: float
) -> None:
    """Sets the weights to `(1 - share) start + share end`."""
    model.load_state_dict({key: tensor.lerp(end[key], share) for key, tensor in start.items()})


def _collator(corpus: np.ndarray, sets: list[AnchorSet], rows: Dataset, recipe: AdaptorRecipe) -> AdaptorCollator:
    return AdaptorCollator(
        corpus,
        sets,
        rows=rows,
        num_neighbours=recipe.num_neighbours,
        neighbours_per_anchor=recipe.neighbours_per_anchor,
        random_candidates=recipe.random_candidates,
        seed=recipe.seed,
    )
