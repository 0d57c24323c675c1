"""Checkpoints that appear under their name only when they are whole."""

import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput, rotate_checkpoints


# Where a checkpoint is written, in the folder of the checkpoints.
STAGING = f".{PREFIX_CHECKPOINT_DIR}s"


class WholeCheckpointsTrainer(Trainer):
    """A `transformers.Trainer` that writes a checkpoint beside its name and then renames it.

    The `Trainer` itself writes file by file under the final name, the state last. A run that was killed meanwhile, or
    found the disk full, would go on from what is there: for example with the moments of a fresh optimizer. From the
    checkpoint of the last step it would take one more.

    With `push_to_hub` checkpoints are written as by the `Trainer`, which uploads them in the background from where it
    wrote them.

    Raises:
        OSError: In one sentence, if a checkpoint cannot be written; those before it stay.
    """

    # Where a checkpoint is written just now.
    _staging: str | None = None

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        if self.args.should_save:
            shutil.rmtree(Path(self.args.output_dir) / STAGING, ignore_errors=True)  # of a run that was killed
        return super().train(*args, **kwargs)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def _get_output_dir(self, trial: Any) -> str:
        return self._staging or super()._get_output_dir(trial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self.args.push_to_hub:
            super()._save_checkpoint(model, trial)
            return
        folder = Path(self._get_output_dir(trial))
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        # The name of the checkpoint stays: transformers names remote code after the folder.
        staging, final = folder / STAGING, folder / name
        self._staging = str(staging)
        try:
            staging.mkdir(parents=True, exist_ok=True)
            super()._save_checkpoint(model, trial)
            # Every process has a file of its own in it.
            self.accelerator.wait_for_everyone()
            best = self.state.best_model_checkpoint == str(staging / name)
            if best:
                self.state.best_model_checkpoint = str(final)
            if self.args.should_save:
                if best:
                    self.state.save_to_json(str(staging / name / TRAINER_STATE_NAME))
                shutil.rmtree(final, ignore_errors=True)
                os.replace(staging / name, final)
        except (OSError, RuntimeError, SafetensorError) as error:
            said = " ".join(str(error).split())
            raise OSError(f"the checkpoint {final} cannot be written: {said}; those before it stay") from error
        finally:
            self._staging = None
            if self.args.should_save:
                shutil.rmtree(staging, ignore_errors=True)
        if self.args.should_save:
            rotate_checkpoints(
                output_dir=str(folder),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )
        self.accelerator.wait_for_everyone()
