"""Training arguments that every trainer of nested models shares."""

import math
from dataclasses import dataclass, field, fields

import torch
from transformers import TrainingArguments
from transformers.utils import logging


logger = logging.get_logger(__name__)

LEVEL_SAMPLING = ("all", "sandwich", "random")
LEVEL_SCHEDULES = ("constant", "ascending", "descending")


@dataclass
class MatryoshkaTrainingArguments(TrainingArguments):
    r"""
    Arguments of [`MatryoshkaTrainer`]: those of `transformers.TrainingArguments`, and which levels a step trains.

    Parameters that control the levels of a step:
        level_sampling (`str`, *optional*, defaults to `"all"`): `"all"`, `"sandwich"` or `"random"`.
        levels_per_step (`int`, *optional*, defaults to 2): Levels drawn a step by `"sandwich"` and `"random"`.
        level_weights (`list[float]`, *optional*): Weight of each level's loss, smallest level first.
        level_probabilities (`list[float]`, *optional*): How often each level is drawn, smallest level first.
        level_schedule (`str`, *optional*, defaults to `"constant"`): Curriculum over the levels.
        level_schedule_fraction (`float`, *optional*, defaults to 0.5): Part of the training it takes.

    Defaults that differ from `TrainingArguments`: `remove_unused_columns=False`, because nested trainers feed more
    than the arguments of the model's `forward`. `fp16` without an accelerator falls back to float32, with a warning;
    `bf16` works on a CPU.
    """

    level_sampling: str = field(
        default="all",
        metadata={
            "help": "Levels trained in a step: 'all'; 'sandwich', the smallest, the largest and `levels_per_step` "
            "random ones between (arXiv 1903.05134); 'random', `levels_per_step` random ones."
        },
    )
    levels_per_step: int = field(
        default=2, metadata={"help": "Number of levels drawn a step by level_sampling 'sandwich' and 'random'."}
    )
    level_weights: list[float] | None = field(
        default=None, metadata={"help": "Weight of each level's loss, smallest level first; equal weights by default."}
    )
    level_probabilities: list[float] | None = field(
        default=None,
        metadata={
            "help": "How often, relative to the others, each level is drawn by level_sampling 'sandwich' and "
            "'random', smallest level first; equally often by default."
        },
    )
    level_schedule: str = field(
        default="constant",
        metadata={
            "help": "'constant': every level from the first step; 'ascending': levels join one after the other, the "
            "smallest first; 'descending': the largest first."
        },
    )
    level_schedule_fraction: float = field(
        default=0.5, metadata={"help": "Part of the training after which a schedule has every level in it."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Remove the columns that the model's forward does not take."}
    )

    def __post_init__(self):
        if self.hub_token is not None:
            raise ValueError(
                "hub_token would be written into the files of the run; leave it out, and log in with `hf auth login` "
                "or set HF_TOKEN"
            )
        if self.fp16 and (self.use_cpu or not torch.accelerator.is_available()):
            logger.warning("fp16=True needs an accelerator: training in float32 (bf16=True works on a CPU).")
            self.fp16 = False
        if self.bf16 and not torch.accelerator.is_available():
            self.use_cpu = True  # without it `TrainingArguments` takes bf16 for a GPU's
        super().__post_init__()
        for item in fields(self):
            value = getattr(self, item.name)
            for number in value if isinstance(value, list) else [value]:
                # Without a bound on gradients, max_grad_norm is infinite.
                free = item.name == "max_grad_norm" and number == math.inf
                if isinstance(number, float) and not math.isfinite(number) and not free:
                    raise ValueError(f"{item.name} must be finite, but is {value}")
        if self.learning_rate < 0:
            raise ValueError(f"learning_rate must not be negative, but is {self.learning_rate}")
        for name, choices in (("level_sampling", LEVEL_SAMPLING), ("level_schedule", LEVEL_SCHEDULES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} {getattr(self, name)!r} does not exist; choose one of {', '.join(choices)}")
        if self.levels_per_step < 1:
            raise ValueError(f"levels_per_step must be at least 1, but is {self.levels_per_step}")
        if not 0 < self.level_schedule_fraction <= 1:
            raise ValueError(f"level_schedule_fraction must be in (0, 1], but is {self.level_schedule_fraction}")
