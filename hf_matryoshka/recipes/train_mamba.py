"""Distilling a sentence encoder into a Matryoshka Mamba encoder: every width, every output dimension."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Subset
from transformers import PreTrainedTokenizerBase

from ..data.base_models import load_base_model
from ..data.embedding_batches import EmbeddingCollator, EmbeddingDataset, PairDataset, batches_by_length
from ..modeling import MatryoshkaMambaModel
from ..modeling.st_matryoshka_mamba import mamba_sentence_encoder
from ..surgery.adaptor_init import principal_rotation
from ..surgery.mamba_init import start_as_bag_of_words
from ..trainers.dim_curriculum import checked_dim_weights
from ..trainers.level_sampler import LevelSampler
from ..trainers.mamba_arguments import MambaTrainingArguments
from ..trainers.mamba_trainer import MambaTrainer
from .distillation_texts import gather_pairs, gather_texts
from .mamba_curve import agreement_curve
from .mamba_model import build_config, build_model, take_tokenizer
from .mamba_recipe import MambaRecipe
from .run_folder import CURVE_FILE, finish_run, is_finished, load_report, load_text_model, open_run
from .teacher_embeddings import teacher_embeddings
from .training_run import check_texts_a_step, run_arguments, run_key, run_training


LEARNING_RATE = 1e-3


@dataclass
class TrainedMamba:
    """A Matryoshka Mamba encoder and how it came about.

    Args:
        model ([`MatryoshkaMambaModel`]): The encoder, in evaluation mode.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        report (`dict`): Steps, seconds, the held-out loss of each width before and after, and how far the held-out
            texts' similarities agree with the teacher's at each width and dimension.
    """

    model: MatryoshkaMambaModel
    tokenizer: PreTrainedTokenizerBase
    report: dict[str, Any]


def train_mamba(
    recipe: MambaRecipe,
    output_dir: str | Path,
    training: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> TrainedMamba:
    """Distils a sentence encoder into a Mamba encoder; an interrupted call with the same arguments goes on.

    The teacher encodes the texts once; the student has its tokenizer and, where they fit, its token embeddings, and
    starts as a linear map of their mean ([`start_as_bag_of_words`]); then every width learns every output dimension by
    [`MambaTrainer`].

    Args:
        recipe ([`MambaRecipe`]):
            What to train on, and which model.
        output_dir (`str` or `Path`):
            Gets `model/` (a sentence-transformers folder), `training.json` (the report), `curve.json` (held-out
            quality of each width at the largest dimension) and the checkpoints.
        training (`dict`, *optional*):
            Further [`MambaTrainingArguments`].
        overwrite (`bool`, *optional*, defaults to `False`):
            Whether to delete another run that lies in `output_dir`.

    Returns:
        [`TrainedMamba`].

    Raises:
        ValueError: If an argument has no valid value, sizes do not fit together, there are too few texts, or
            `output_dir` holds another run.
        OSError: If something cannot be read, or `output_dir` cannot be written.
    """
    training = dict(training or {})
    args = mamba_arguments(Path(output_dir) / "checkpoints", recipe, training)
    teacher = load_base_model(recipe.teacher_model_path, device=str(args.device))
    tokenizer = take_tokenizer(teacher)
    config = build_config(recipe, tokenizer)
    # What the trainer would refuse only after the teacher's work.
    LevelSampler(len(config.levels), args)
    checked_dim_weights(config.matryoshka_dims, args)
    model = build_model(recipe, config, teacher)
    texts = gather_texts(recipe)
    count = round(recipe.validation_fraction * len(texts))
    pairs = gather_pairs(recipe, texts[:count])
    check_texts_a_step(args, len(texts) - count + len(pairs))
    joined = ["\t".join(pair) for pair in pairs]
    folder = open_run(output_dir, run_key(recipe, training, [*texts, *joined]), overwrite)
    if is_finished(folder):
        return load_run(folder)

    progress = not args.disable_tqdm
    # Each text once, those of the pairs after the others.
    distinct = list(dict.fromkeys([*texts, *(text for pair in pairs for text in pair)]))
    places = {text: row for row, text in enumerate(distinct)}
    embeddings = teacher_embeddings(teacher, distinct, args.bf16, progress)
    if recipe.rotate_teacher:
        embeddings = (embeddings @ principal_rotation(embeddings[count:]).T).astype(np.float32)
    dataset = EmbeddingDataset(distinct, embeddings, tokenizer, recipe.max_length, progress)
    rows = PairDataset(dataset, range(count, len(texts)), [(places[first], places[second]) for first, second in pairs])
    collator = EmbeddingCollator(tokenizer.pad_token_id)
    if recipe.init_head:
        start_as_bag_of_words(model, batches_by_length(dataset, range(count, len(distinct)), collator))
    trainer = MambaTrainer(
        model=model,
        args=args,
        train_dataset=rows,
        eval_dataset=Subset(dataset, range(count)) if count else None,
        data_collator=collator,
    )
    report = {"recipe": asdict(recipe), "training": training, "texts": len(texts) - count, "held_out_texts": count}
    report |= {"pairs": len(pairs), **run_training(trainer, "Mamba encoder")}
    if count > 2:
        curve, report["spearman_to_teacher"] = agreement_curve(
            model.eval(), dataset, range(count), args.per_device_eval_batch_size
        )
        curve.to_json(folder / CURVE_FILE)
    # Training cut the texts; what is saved cuts nothing.
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_truncation()
    # Else sentence-transformers would take the folder for a transformer, and pool its tokens once more.
    finish_run(folder, report, mamba_sentence_encoder(model, tokenizer))
    return load_run(folder)


def mamba_arguments(folder: Path, recipe: MambaRecipe, training: dict[str, Any]) -> MambaTrainingArguments:
    """The arguments of a run.

    Raises:
        ValueError: If one has no valid value.
    """
    return run_arguments(MambaTrainingArguments, folder, recipe, training, learning_rate=LEARNING_RATE)


def load_run(folder: Path) -> TrainedMamba:
    """A finished run."""
    return TrainedMamba(*load_text_model(folder, MatryoshkaMambaModel), load_report(folder))
