"""Training a funnel from texts, or from embeddings that are there already."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.errors import StrictDataclassError

from ..data.chunked_vectors import ChunkedVectors
from ..data.convention_encoders import load_encoder
from ..data.embedding_conventions import check_lengths
from ..data.embedding_rows import CHUNK, EmbeddingRows, collate_rows, split_rows
from ..data.files import reading_weights
from ..data.vectors import open_vectors
from ..evaluation.curve import Curve
from ..evaluation.reconstruction import NEIGHBOURS, funnel_curve, linear_codes, linear_curve, overlap_curve
from ..modeling import MatryoshkaFunnelConfig, MatryoshkaFunnelModel
from ..surgery.funnel_gates import calibrate_spreads, choose_gates, fit_first_stage
from ..surgery.funnel_init import init_funnel
from ..trainers.funnel_arguments import FunnelTrainingArguments
from ..trainers.funnel_trainer import FunnelTrainer
from ..trainers.level_sampler import LevelSampler
from .distillation_texts import gather_texts
from .funnel_recipe import FunnelRecipe
from .run_folder import CURVE_FILE, OVERLAP_FILE, finish_run, is_finished, load_report, open_run
from .teacher_embeddings import teacher_embeddings
from .training_run import check_texts_a_step, options_digest, run_arguments, run_training


DEFAULTS = {
    "max_steps": 5000,
    "per_device_train_batch_size": 1024,
    "per_device_eval_batch_size": 4096,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.05,
    "weight_decay": 0.01,
}
# Embeddings at most that the linear codes of the report are fitted on, that gates are chosen and spreads calibrated
# on, and that are reported on: more change no digit that is shown. Neighbours are looked for among fewer.
MAX_LINEAR_ROWS, MAX_GATE_ROWS, MAX_TEST_ROWS, MAX_OVERLAP_ROWS = 200_000, 10_000, 50_000, 5_000


@dataclass
class TrainedFunnel:
    """A funnel and how it came about.

    Args:
        model ([`MatryoshkaFunnelModel`]): The funnel, in evaluation mode.
        report (`dict`): Steps, seconds, parameters, validation losses before and after, the chosen gates, and of test
            embeddings at each level the mean reconstruction cosine and the share of nearest neighbours that the
            latents keep, beside those of linear codes.
    """

    model: MatryoshkaFunnelModel
    report: dict[str, Any]


def train_funnel(
    recipe: FunnelRecipe,
    output_dir: str | Path,
    training: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> TrainedFunnel:
    """Trains a funnel; an interrupted call with the same arguments goes on.

    The embeddings are split at random into training, validation and test ones. The funnel starts from the principal
    components of the training ones ([`init_funnel`]); gates are chosen and spreads are calibrated on the validation
    ones.

    Args:
        recipe ([`FunnelRecipe`]):
            What to train on, and which model.
        output_dir (`str` or `Path`):
            Gets `model/`, `training.json` (the report), `curve.json` (reconstruction of the test embeddings at each
            level, beside PCA), `overlap_curve.json` (nearest neighbours that they and their latents have in common)
            and the checkpoints.
        training (`dict`, *optional*):
            Further [`FunnelTrainingArguments`].
        overwrite (`bool`, *optional*, defaults to `False`):
            Whether to delete another run that lies in `output_dir`.

    Returns:
        [`TrainedFunnel`].

    Raises:
        ValueError: If an argument has no valid value, the embeddings do not fit the funnel or their convention, there
            are too few, or `output_dir` holds another run.
        OSError: If something cannot be read, or `output_dir` cannot be written.
    """
    training = dict(training or {})
    args = run_arguments(FunnelTrainingArguments, Path(output_dir) / "checkpoints", recipe, training, **DEFAULTS)
    base = load_funnel(recipe.funnel_path) if recipe.funnel_path else None
    vectors, texts = None, []
    if recipe.vectors is not None:
        vectors = open_vectors(recipe.vectors)
        check_lengths(vectors[:CHUNK], recipe.embedding_convention)
        width, count = vectors.shape[1], len(vectors)
    else:
        encoder = load_encoder(recipe.base_model_path, recipe.embedding_convention, device=str(args.device))
        encoder.max_seq_length = min(recipe.max_length, encoder.max_seq_length or recipe.max_length)
        texts = gather_texts(recipe)
        width, count = encoder.get_embedding_dimension(), len(texts)
    config = base.config if base else build_config(recipe, width)
    if config.embedding_dim != width:
        raise ValueError(
            f"{recipe.funnel_path} is a funnel of embeddings of width {config.embedding_dim}, but these have {width}"
        )
    if base and config.embedding_convention != recipe.embedding_convention:
        raise ValueError(
            f"{recipe.funnel_path} was trained on embeddings of the convention {config.embedding_convention!r}, not "
            f"{recipe.embedding_convention!r}"
        )
    # What the trainer would refuse only after the work before it.
    LevelSampler(len(config.levels), args)
    check_texts_a_step(args, count - round(count * recipe.validation_fraction) - round(count * recipe.test_fraction))
    folder = open_run(output_dir, _run_key(recipe, training, vectors, texts), overwrite)
    if is_finished(folder):
        return load_run(folder)

    if vectors is None:
        vectors = teacher_embeddings(encoder, texts, progress=not args.disable_tqdm)
    rows, held_out, test = split_rows(vectors, (recipe.validation_fraction, recipe.test_fraction), recipe.seed)
    model = base or init_funnel(rows, config, recipe.seed)
    trainer = FunnelTrainer(
        model=model.train(),
        args=args,
        train_dataset=rows,
        eval_dataset=held_out if len(held_out) else None,
        data_collator=collate_rows,
    )
    report = {"recipe": asdict(recipe), "training": training}
    report |= {"embeddings": {"train": len(rows), "validation": len(held_out), "test": len(test)}}
    report |= {"parameters": sum(tensor.numel() for tensor in model.parameters())}
    report |= run_training(trainer, "funnel")
    model = trainer.accelerator.unwrap_model(trainer.model).eval()
    fit_first_stage(model, rows)
    if recipe.choose_gates and config.kind == "residual" and len(held_out):
        report["gates"] = choose_gates(model, _first(held_out, MAX_GATE_ROWS))
    if len(held_out):
        calibrate_spreads(model, _first(held_out, MAX_GATE_ROWS))
    if len(test):
        report |= _measure(model, rows, _first(test, MAX_TEST_ROWS), folder)
    finish_run(folder, report, model)
    return TrainedFunnel(model.cpu(), report)


def build_config(recipe: FunnelRecipe, width: int) -> MatryoshkaFunnelConfig:
    """The config of a recipe, for embeddings of this width.

    Raises:
        ValueError: If sizes do not fit together.
    """
    options = recipe.shape() | {
        "embedding_dim": width,
        "embedding_convention": recipe.embedding_convention,
        "base_model": recipe.base_model_path,
    }
    try:
        if recipe.preset is not None:
            return MatryoshkaFunnelConfig.from_preset(recipe.preset, **options)
        return MatryoshkaFunnelConfig(**options)
    except StrictDataclassError as error:
        raise ValueError(str(error.__cause__ or error)) from error


def load_funnel(path: str) -> MatryoshkaFunnelModel:
    """A trained funnel.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If the folder holds another kind of model.
    """
    folder = Path(path) / "model" if (Path(path) / "model").is_dir() else Path(path)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{path} holds no funnel; give the folder of one, or of its run")
    found = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if found != MatryoshkaFunnelConfig.model_type:
        raise ValueError(f"{path} holds a model of type {found!r}, not a {MatryoshkaFunnelConfig.model_type!r}")
    with reading_weights(folder):
        return MatryoshkaFunnelModel.from_pretrained(folder)


def load_run(folder: Path) -> TrainedFunnel:
    """A finished run."""
    return TrainedFunnel(load_funnel(str(folder)).eval(), load_report(folder))


def _measure(
    model: MatryoshkaFunnelModel, rows: EmbeddingRows, test: EmbeddingRows, folder: Path
) -> dict[str, dict[str, dict[str, float]]]:
    """Mean cosines of the test embeddings and their reconstructions, and neighbours in common with their latents, by
    system and level; writes both curves."""
    curve = funnel_curve(model, test, "test")
    found = {"ours": curve}
    codes = linear_codes(_first(rows, MAX_LINEAR_ROWS)) if model.config.geometry == "sphere" else {}
    for name, code in codes.items():
        found[name] = linear_curve(model, code, name, test, "test")
    pca = {name: code for name, code in codes.items() if name.startswith("pca")}
    curve.baselines |= {name: found[name] for name in pca}
    curve.to_json(folder / CURVE_FILE)
    report = {"reconstruction": _by_level(found)}
    if len(test) > NEIGHBOURS:
        overlap = overlap_curve(model, _first(test, MAX_OVERLAP_ROWS), "test", pca)
        overlap.to_json(folder / OVERLAP_FILE)
        report["neighbour_overlap"] = _by_level({"ours": overlap} | overlap.baselines)
    return report


def _by_level(curves: dict[str, Curve]) -> dict[str, dict[str, float]]:
    return {name: dict(zip(curve.levels, curve.qualities, strict=True)) for name, curve in curves.items()}


def _first(rows: EmbeddingRows, count: int) -> EmbeddingRows:
    """The first rows, which are in a random order, as many as there are up to `count`."""
    return EmbeddingRows(rows.vectors, rows.rows[:count])


def _run_key(
    recipe: FunnelRecipe, training: dict[str, Any], vectors: np.ndarray | ChunkedVectors | None, texts: list[str]
) -> str:
    digest = options_digest(recipe, training, texts)
    for start in range(0, 0 if vectors is None else len(vectors), CHUNK):
        digest.update(np.ascontiguousarray(vectors[start : start + CHUNK]).data)
    return digest.hexdigest()
