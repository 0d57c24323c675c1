"""The folder of a training run: new, continued, or refused."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..data.files import ensure_writable_folder, reading_weights, remove_leftovers, write_beside


# Quality against cost of each level on held-out texts, which an export shows in its cards, and the same by a second
# measure, for runs that have one.
CURVE_FILE, OVERLAP_FILE = "curve.json", "overlap_curve.json"
# The model, and the report: written last, so that a run which has one is finished.
MODEL_FOLDER, REPORT_FILE = "model", "training.json"


def open_run(folder: str | Path, key: str, overwrite: bool = False) -> Path:
    """Makes the folder of a run, or opens it to go on.

    Args:
        folder (`str` or `Path`): The folder.
        key (`str`): Equal for runs with the same data and options.
        overwrite (`bool`, *optional*, defaults to `False`): Whether to delete another run that lies there.

    Returns:
        `Path`: The folder.

    Raises:
        ValueError: If it holds other files or another run, or this is one of several processes of a launcher.
        OSError: If it cannot be written.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise ValueError(
            f"a run is made by one process, but the launcher started {processes}; call it without torchrun, or train "
            "with the trainer itself under torchrun"
        )
    folder = Path(folder)
    mark = folder / "run.json"
    # Of a call that was killed before there was a run.
    remove_leftovers(mark)
    if folder.is_dir() and os.listdir(folder):
        same = _key_of(mark) == key
        if not same and not overwrite:
            raise ValueError(
                f"{folder} holds other files or a run with other data or options; name another folder or overwrite it"
            )
        if not same:
            # The mark first: what an interruption leaves is then no run that would go on.
            mark.unlink(missing_ok=True)
            shutil.rmtree(folder)
    ensure_writable_folder(folder)
    with write_beside(mark) as temporary:
        temporary.write_text(json.dumps({"key": key}) + "\n", encoding="utf-8")
    return folder


def is_finished(folder: Path) -> bool:
    """Whether a run has ended, so that its model and its report are whole."""
    return (folder / REPORT_FILE).is_file()


def finish_run(folder: Path, report: dict[str, Any], *parts: Any) -> None:
    """Writes what a run made: its model, then its report. A model that an interrupted call left is replaced.

    Args:
        folder (`Path`): The folder of the run.
        report (`dict`): What `training.json` will say.
        parts: What goes into `model/`: a model and its tokenizer, or a `SentenceTransformer`, which has its own.

    Raises:
        OSError: If something cannot be written; nothing half-written then has a final name.
    """
    shutil.rmtree(folder / MODEL_FOLDER, ignore_errors=True)
    with write_beside(folder / MODEL_FOLDER) as temporary:
        for part in parts:
            if isinstance(part, SentenceTransformer):
                # Cards are those of an export, which knows how good the levels are.
                part.save(str(temporary), create_model_card=False)
            else:
                part.save_pretrained(temporary)
    with write_beside(folder / REPORT_FILE) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def load_report(folder: Path) -> dict[str, Any]:
    """The report of a finished run."""
    return json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))


def load_text_model(folder: Path, model_class: Any) -> tuple[Any, PreTrainedTokenizerBase]:
    """The model of a finished run, in evaluation mode, and its tokenizer.

    Args:
        folder (`Path`): The folder of the run.
        model_class (`type`): Its `from_pretrained` loads the model.

    Raises:
        ValueError: If the weights are damaged.
    """
    with reading_weights(folder / MODEL_FOLDER):
        model = model_class.from_pretrained(folder / MODEL_FOLDER)
    return model.eval(), AutoTokenizer.from_pretrained(folder / MODEL_FOLDER)


def _key_of(mark: Path) -> str | None:
    """The key of the run that lies there, `None` without one."""
    try:
        return json.loads(mark.read_text(encoding="utf-8"))["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
