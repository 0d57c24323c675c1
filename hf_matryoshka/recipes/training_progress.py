"""How a training run shows itself on the terminal."""

from transformers import PrinterCallback, Trainer, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ProgressCallback


class TrainingProgress(ProgressCallback):
    """A named progress bar on standard error, without the logs."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        if state.is_world_process_zero:
            self.training_bar.set_description(f"Training ({self.name})")

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs
    ) -> None:
        pass

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        pass


def show_progress(trainer: Trainer, name: str) -> None:
    """Gives a trainer one named progress bar, unless its arguments switch bars off, and keeps its logs to itself.

    Standard output is for results; what training logs is in the checkpoints and, summed up, in the report of the run.
    """
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    if not trainer.args.disable_tqdm:
        trainer.add_callback(TrainingProgress(name))
