"""What all runs of a recipe do alike: their arguments, their key, the training, the report."""

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from ..trainers.matryoshka_arguments import MatryoshkaTrainingArguments
from ..trainers.matryoshka_trainer import MatryoshkaTrainer
from .checkpoints import last_checkpoint
from .cpu_memory import keep_freed_memory
from .training_progress import show_progress


Arguments = TypeVar("Arguments", bound=MatryoshkaTrainingArguments)


class Recipe(Protocol):
    """The options of a run that are not those of a trainer: a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    seed: int


# Defaults of the arguments; those of a recipe and `training` override them.
DEFAULTS = {
    "max_steps": 5000,
    "per_device_train_batch_size": 128,
    "per_device_eval_batch_size": 128,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0.02,
    "weight_decay": 0.01,
    "logging_steps": 100,
    "save_total_limit": 2,
    "dataloader_pin_memory": False,
    "report_to": "none",
}


def run_arguments(
    arguments_class: type[Arguments], folder: Path, recipe: Recipe, training: dict[str, Any], **defaults: Any
) -> Arguments:
    """The arguments of a run.

    Args:
        arguments_class (`type`): Those of its trainer.
        folder (`Path`): Where its checkpoints are.
        recipe (a dataclass): Has the seed.
        training (`dict`): What the user gave.
        defaults: What is not as in [`DEFAULTS`].

    Raises:
        ValueError: If one has no valid value.
    """
    if "output_dir" in training:
        raise ValueError("output_dir is the folder of the run; it is no training argument")
    settings = {**DEFAULTS, **defaults, "seed": recipe.seed, **training}
    settings |= {"output_dir": str(folder), "save_strategy": "steps"}
    if settings["max_steps"] < 1:
        raise ValueError(f"max_steps must be at least 1, but is {settings['max_steps']}")
    settings.setdefault("save_steps", max(1, settings["max_steps"] // 10))
    return arguments_class(**settings)


def check_texts_a_step(args: MatryoshkaTrainingArguments, count: int) -> None:
    """Raise `ValueError` if one step takes more than the `count` texts that there are to train on."""
    needed = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    if count < needed:
        raise ValueError(
            f"there are {count} texts to train on, but one step takes {needed}; give more texts or a smaller batch"
        )


def run_key(recipe: Recipe, training: dict[str, Any], texts: Iterable[str]) -> str:
    """Equal for runs with the same options and texts."""
    return options_digest(recipe, training, texts).hexdigest()


def options_digest(recipe: Recipe, training: dict[str, Any], texts: Iterable[str] = ()) -> Any:
    """What a key is made of, to which a run adds what else it is trained on: a SHA-256 of `hashlib`."""
    digest = hashlib.sha256(json.dumps([asdict(recipe), training], sort_keys=True, default=str).encode())
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return digest


def run_training(trainer: MatryoshkaTrainer, name: str) -> dict[str, Any]:
    """Trains, from the last checkpoint if there is one; what the report says about it.

    Args:
        trainer ([`MatryoshkaTrainer`]): The trainer; where it has held-out texts, their losses are reported.
        name (`str`): What the progress bar says is trained.
    """
    show_progress(trainer, name)
    held_out, folder = trainer.eval_dataset is not None, Path(trainer.args.output_dir)
    report: dict[str, Any] = {}
    if held_out:
        report["before"] = _losses(trainer)
    checkpoint = last_checkpoint(folder)
    if trainer.args.device.type == "cpu":
        keep_freed_memory()
    began = time.time()
    result = trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.time() - began
    if held_out:
        report["after"] = _losses(trainer)
    return report | {
        "steps": trainer.state.global_step,
        # The seconds are those of this call, which may have gone on where another one stopped.
        "resumed_from_step": int(checkpoint.rsplit("-", 1)[1]) if checkpoint else 0,
        "seconds": round(seconds, 2),
        "training_loss": result.training_loss,
    }


def _losses(trainer: MatryoshkaTrainer) -> dict[str, float]:
    metrics = trainer.evaluate()
    return {level: metrics[f"eval_loss_{level}"] for level in trainer.levels}
