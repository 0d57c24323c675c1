"""The checkpoint that an interrupted training goes on from."""

import json
import logging
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, sort_checkpoints


logger = logging.getLogger(__name__)


def last_checkpoint(folder: str | Path) -> str | None:
    """The last checkpoint of a training whose files can be read; those that cannot are named in a warning.

    Args:
        folder (`str` or `Path`): Where its checkpoints are.

    Returns:
        `str`: The folder of the checkpoint, `None` without one.
    """
    for checkpoint in reversed(sort_checkpoints(str(folder), PREFIX_CHECKPOINT_DIR)):
        damaged = _damaged_file(Path(checkpoint))
        if damaged is None:
            return checkpoint
        logger.warning("%s is damaged; the training goes on from the checkpoint before it, or anew", damaged)
    return None


def training_was_stopped(checkpoint: str) -> bool:
    """Whether the training ended at this checkpoint, early or with its last step."""
    state = json.loads((Path(checkpoint) / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    control = state.get("stateful_callbacks", {}).get("TrainerControl", {})
    return control.get("args", {}).get("should_training_stop", False)


def _damaged_file(checkpoint: Path) -> Path | None:
    """A file of a checkpoint that is missing, cut short or no such file."""
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return checkpoint / TRAINER_STATE_NAME
    for path in sorted(checkpoint.glob("*.safetensors")):
        try:
            # Its header says how long the file is.
            with safe_open(path, "pt"):
                pass
        except (OSError, SafetensorError):
            return path
    # Torch writes zip archives, whose table of contents comes last.
    for path in sorted([*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]):
        if not zipfile.is_zipfile(path):
            return path
    return None
