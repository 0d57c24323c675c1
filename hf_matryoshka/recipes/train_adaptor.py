"""Training an adaptor from cached vectors: unsupervised, then supervised where there are labels."""

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..modeling import MatryoshkaAdaptorModel
from ..surgery.adaptor_init import create_adaptor
from .adaptor_recipe import AdaptorRecipe
from .adaptor_stage import run_stage, stage_arguments
from .adaptor_validation import hold_out
from .adaptor_vectors import AdaptorVectors
from .run_folder import finish_run, open_run
from .training_run import options_digest


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
    there are any and the recipe does not switch it off. Each stage is run with documents held out to find how far to
    go (see [`run_stage`]), and then (`recipe.refit`) once more on everything, that far.

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
    folder = open_run(output_dir, _run_key(vectors, recipe, training), overwrite)
    stages = ["unsupervised"] + ["supervised"] * (recipe.supervised and vectors.queries is not None)
    stage_arguments(folder, stages[-1], 1, recipe, training)  # a bad argument is refused before any work
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
            searched, result = run_stage(
                start, held_out.train, folder, stage, steps, recipe, training, held_out=held_out
            )
        if held_out is None:
            model, result = run_stage(
                model or _initial(vectors, recipe), vectors, folder, stage, steps, recipe, training
            )
        elif recipe.refit:
            model, share = model or _initial(vectors, recipe), result["share"]
            if share:
                name, steps = f"{stage}-refit", result["best_step"]
                model, result["refit"] = run_stage(model, vectors, folder, name, steps, recipe, training, share=share)
        else:
            model = searched
        report["stages"][stage] = result
        model.config.base_model = vectors.base_model
        after_stage[stage] = copy.deepcopy(model).eval()
    finish_run(folder, report, model)
    return TrainedAdaptor(model.eval(), report, after_stage)


def _run_key(vectors: AdaptorVectors, recipe: AdaptorRecipe, training: dict[str, Any]) -> str:
    digest = options_digest(recipe, training)
    for item in (vectors.titles, vectors.sentences, vectors.queries):
        if item is not None:
            digest.update(np.ascontiguousarray(item.vectors).data)
            digest.update(json.dumps([sorted(grades.items()) for grades in item.relevance]).encode())
        digest.update(b"|")
    digest.update(vectors.corpus.data)
    return digest.hexdigest()


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
