"""Distilling a sentence encoder into a nested one: every budget, every output width."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import nn

from ..data.base_models import load_base_model
from ..data.embedding_batches import EmbeddingCollator, EmbeddingDataset
from ..evaluation.bootstrap import bootstrap_mean
from ..evaluation.curve import Curve, LevelPoint
from ..hub.trained_folder import load_sentence_encoder
from ..surgery.layer_order import order_layers_by_importance
from ..surgery.nest_encoder import nest_sentence_encoder
from ..surgery.rewire import rewire_by_importance
from ..trainers.delta_embedding_arguments import DeltaEmbeddingTrainingArguments
from ..trainers.delta_embedding_trainer import DeltaEmbeddingTrainer
from .delta_embedding_recipe import DeltaEmbeddingRecipe
from .distillation_texts import gather_texts
from .run_folder import CURVE_FILE, MODEL_FOLDER, finish_run, is_finished, load_report, open_run
from .teacher_embeddings import teacher_embeddings
from .training_run import check_texts_a_step, run_arguments, run_key, run_training


LEARNING_RATE = 3e-4


@dataclass
class TrainedEncoder:
    """A nested sentence encoder and how it came about.

    Args:
        model (`SentenceTransformer`): The encoder, in evaluation mode.
        report (`dict`): Steps, seconds, and the held-out loss of each level before and after.
    """

    model: SentenceTransformer
    report: dict[str, Any]


def train_delta_embedding(
    recipe: DeltaEmbeddingRecipe,
    output_dir: str | Path,
    training: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> TrainedEncoder:
    """Distils a sentence encoder into itself, nested; an interrupted call with the same arguments goes on.

    The base model encodes the texts once; the layers that shallow budgets run are chosen, and neurons and heads
    sorted, by importance; then every budget learns its embeddings by [`DeltaEmbeddingTrainer`].

    Args:
        recipe ([`DeltaEmbeddingRecipe`]):
            What to train on, and which model.
        output_dir (`str` or `Path`):
            Gets `model/` (a sentence-transformers folder), `training.json` (the report), `curve.json` (held-out
            quality of each level) and the checkpoints.
        training (`dict`, *optional*):
            Further [`DeltaEmbeddingTrainingArguments`].
        overwrite (`bool`, *optional*, defaults to `False`):
            Whether to delete another run that lies in `output_dir`.

    Returns:
        [`TrainedEncoder`].

    Raises:
        ValueError: If an argument has no valid value, the base model cannot be nested, there are too few texts, or
            `output_dir` holds another run.
        OSError: If something cannot be read, or `output_dir` cannot be written.
    """
    training = dict(training or {})
    args = embedding_arguments(Path(output_dir) / "checkpoints", recipe, training)
    base = load_base_model(recipe.base_model_path, device=str(args.device))
    nested = nest_sentence_encoder(
        base, recipe.budgets, recipe.matryoshka_dims, recipe.residual or "full", recipe.layer_order
    )
    texts = gather_texts(recipe)
    count = round(recipe.validation_fraction * len(texts))
    check_texts_a_step(args, len(texts) - count)
    folder = open_run(output_dir, run_key(recipe, training, texts), overwrite)
    if is_finished(folder):
        return load_run(folder)

    progress = not args.disable_tqdm
    embeddings = teacher_embeddings(base, texts, args.bf16, progress)
    if recipe.order_layers or (recipe.order_layers is None and recipe.layer_order is None):
        order_layers_by_importance(nested[0].model, texts[count:], nested.tokenizer, progress=progress)
    if recipe.rewire:
        rewire_by_importance(nested[0].model, texts[count:], nested.tokenizer, num_texts=512)
    dataset = EmbeddingDataset(texts, embeddings, nested.tokenizer, recipe.max_length, progress)
    report = {"recipe": asdict(recipe), "training": training, "texts": len(texts) - count, "held_out_texts": count}
    report |= _train(nested, dataset, count, args, recipe)
    if count:
        _curve(nested.eval(), texts[:count], embeddings[:count]).to_json(folder / CURVE_FILE)
    finish_run(folder, report, nested)
    return TrainedEncoder(nested.eval(), report)


def _curve(nested: SentenceTransformer, texts: list[str], targets: np.ndarray) -> Curve:
    """Cosine of each held-out text's embedding and the teacher's against cost, for the cards of an export."""
    model, points = nested[0].model, []
    config = model.config
    for number, level in enumerate(config.levels):
        vectors = nested.encode(texts, level=level, show_progress_bar=False)
        leading = targets[:, : vectors.shape[1]]
        norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(leading, axis=1)
        cosines = (vectors * leading).sum(1) / np.where(norms > 0, norms, 1)
        smaller = config.levels[:number]
        inside = tuple(name for name in smaller if config.budget(name).fits_in(config.budget(level)))
        mean, low, high = bootstrap_mean(cosines)
        points.append(LevelPoint(level, None, mean, low, high, model.cost(level), cosines, contains=inside))
    return Curve(points, "cosine_to_teacher", "heldout", "ours")


def embedding_arguments(
    folder: Path, recipe: DeltaEmbeddingRecipe, training: dict[str, Any]
) -> DeltaEmbeddingTrainingArguments:
    """The arguments of a run.

    Raises:
        ValueError: If one has no valid value.
    """
    return run_arguments(DeltaEmbeddingTrainingArguments, folder, recipe, training, learning_rate=LEARNING_RATE)


def load_run(folder: Path) -> TrainedEncoder:
    """A finished run."""
    return TrainedEncoder(load_sentence_encoder(folder / MODEL_FOLDER), load_report(folder))


def _train(
    nested: SentenceTransformer,
    dataset: EmbeddingDataset,
    held_out: int,
    args: DeltaEmbeddingTrainingArguments,
    recipe: DeltaEmbeddingRecipe,
) -> dict[str, Any]:
    """Trains the encoder in place; what the report says about it."""
    encoder, *rest = nested.children()
    # What cuts or normalises the embeddings at the end is no part of what is compared: cosines ignore the length.
    head = nn.Sequential(*[module for module in rest if "matryoshka_dim" not in module.forward_kwargs])
    model = encoder.model
    trainer = DeltaEmbeddingTrainer(
        model=model,
        args=args,
        train_dataset=torch.utils.data.Subset(dataset, range(held_out, len(dataset))),
        eval_dataset=torch.utils.data.Subset(dataset, range(held_out)) if held_out else None,
        data_collator=EmbeddingCollator(nested.tokenizer.pad_token_id),
        head=head,
        matryoshka_dims=recipe.matryoshka_dims or [],
    )
    return run_training(trainer, "sentence encoder")
