"""Arguments of the trainer of Matryoshka GPTs."""

from dataclasses import dataclass, field

from .matryoshka_arguments import MatryoshkaTrainingArguments


@dataclass
class MatryoshkaGPTTrainingArguments(MatryoshkaTrainingArguments):
    r"""
    Arguments of [`MatryoshkaGPTTrainer`].

    Parameters that control in-place distillation:
        kd_weight (`float`, *optional*, defaults to 0): Share of a smaller doll's loss that is the divergence from the
            predictions of the largest one; the rest is the cross-entropy.
        kd_temperature (`float`, *optional*, defaults to 1): Temperature of both.
    """

    kd_weight: float = field(
        default=0.0,
        metadata={
            "help": "Share of a smaller doll's loss that is the divergence from the largest one's predictions, from "
            "0 to 1; the rest is the cross-entropy."
        },
    )
    kd_temperature: float = field(default=1.0, metadata={"help": "Temperature of the predictions in distillation."})

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.kd_weight <= 1:
            raise ValueError(f"kd_weight must be from 0 to 1, but is {self.kd_weight}")
        if self.kd_temperature <= 0:
            raise ValueError(f"kd_temperature must be positive, but is {self.kd_temperature}")
