"""Distilling a sentence encoder into a nested one: every budget, every output width."""

import copy
import hashlib
import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers.trainer_utils import get_last_checkpoint

from ..data.base_models import load_base_model
from ..data.embed import embed_texts
from ..data.embedding_batches import EmbeddingCollator, EmbeddingDataset
from ..data.files import write_beside
from ..evaluation.bootstrap import bootstrap_mean
from ..evaluation.curve import Curve, LevelPoint
from ..surgery.layer_order import order_layers_by_importance
from ..surgery.nest_encoder import nest_sentence_encoder
from ..surgery.rewire import rewire_by_importance
from ..trainers.delta_embedding_arguments import DeltaEmbeddingTrainingArguments
from ..trainers.delta_embedding_trainer import DeltaEmbeddingTrainer
from .delta_embedding_recipe import DeltaEmbeddingRecipe
from .distillation_texts import gather_texts
from .run_folder import CURVE_FILE, open_run
from .training_progress import show_progress


# Defaults of the arguments; `training` overrides them.
DEFAULTS = {
    "max_steps": 5000,
    "per_device_train_batch_size": 128,
    "per_device_eval_batch_size": 128,
    "learning_rate": 3e-4,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0.02,
    "weight_decay": 0.01,
    "logging_steps": 100,
    "save_total_limit": 2,
    "dataloader_pin_memory": False,
    "report_to": "none",
}


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
    needed = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    if len(texts) - count < needed:
        raise ValueError(
            f"there are {len(texts) - count} texts to train on, but one step takes {needed}; give more texts or a "
            "smaller batch"
        )
    folder = open_run(output_dir, _run_key(recipe, training, texts), overwrite)
    if (folder / "training.json").is_file():
        return load_run(folder)

    progress = not args.disable_tqdm
    # The teacher computes in the precision of the training, which is faster on a CPU that has bfloat16.
    teacher = copy.deepcopy(base).to(torch.bfloat16) if args.bf16 else base
    embeddings = _embed(teacher, texts, progress)
    if recipe.order_layers or (recipe.order_layers is None and recipe.layer_order is None):
        order_layers_by_importance(nested[0].model, texts[count:], nested.tokenizer)
    if recipe.rewire:
        rewire_by_importance(nested[0].model, texts[count:], nested.tokenizer, num_texts=512)
    dataset = EmbeddingDataset(texts, embeddings, nested.tokenizer, recipe.max_length, progress)
    report = {"recipe": asdict(recipe), "training": training, "texts": len(texts) - count, "held_out_texts": count}
    report |= _train(nested, dataset, count, args, recipe)
    if count:
        _curve(nested.eval(), texts[:count], embeddings[:count]).to_json(folder / CURVE_FILE)
    shutil.rmtree(folder / "model", ignore_errors=True)
    with write_beside(folder / "model") as temporary:
        nested.save(str(temporary), create_model_card=False)
    with write_beside(folder / "training.json") as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return TrainedEncoder(nested.eval(), report)


def _embed(teacher: SentenceTransformer, texts: list[str], progress: bool) -> np.ndarray:
    """Embeddings of texts of shape `(texts, dim)`."""
    # Texts of one length together: several files of the cache are encoded with half of the padding.
    order = np.argsort([-len(text) for text in texts], kind="stable")
    encoded = embed_texts(teacher, [texts[index] for index in order], batch_size=64, progress=progress)
    embeddings = np.empty_like(encoded)
    embeddings[order] = encoded
    return embeddings


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
    if "output_dir" in training:
        raise ValueError("output_dir is the folder of the run; it is no training argument")
    settings = {**DEFAULTS, "seed": recipe.seed, **training, "output_dir": str(folder), "save_strategy": "steps"}
    if settings["max_steps"] < 1:
        raise ValueError(f"max_steps must be at least 1, but is {settings['max_steps']}")
    settings.setdefault("save_steps", max(1, settings["max_steps"] // 10))
    return DeltaEmbeddingTrainingArguments(**settings)


def load_run(folder: Path) -> TrainedEncoder:
    """A finished run."""
    report = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    model = SentenceTransformer(str(folder / "model"), device="cpu", trust_remote_code=True, local_files_only=True)
    return TrainedEncoder(model.eval(), report)


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
    show_progress(trainer, "sentence encoder")
    report: dict[str, Any] = {}
    if held_out:
        report["before"] = _losses(trainer.evaluate(), model.config.levels)
    checkpoint = get_last_checkpoint(args.output_dir) if Path(args.output_dir).is_dir() else None
    began = time.time()
    result = trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.time() - began
    if held_out:
        report["after"] = _losses(trainer.evaluate(), model.config.levels)
    return report | {
        "steps": trainer.state.global_step,
        # The seconds are those of this call, which may have gone on where another one stopped.
        "resumed_from_step": int(checkpoint.rsplit("-", 1)[1]) if checkpoint else 0,
        "seconds": round(seconds, 1),
        "training_loss": result.training_loss,
    }


def _losses(metrics: dict[str, float], levels: tuple[str, ...]) -> dict[str, float]:
    return {level: metrics[f"eval_loss_{level}"] for level in levels}


def _run_key(recipe: DeltaEmbeddingRecipe, training: dict[str, Any], texts: list[str]) -> str:
    digest = hashlib.sha256(json.dumps([asdict(recipe), training], sort_keys=True, default=str).encode())
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()
