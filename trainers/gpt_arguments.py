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

    Parameters that control the data of a step:
        split_batch (`bool`, *optional*, defaults to `False`): Each level of a step computes rows of its own, so that
            the weights they share see as many more of them for the same cost a row.
    """

    kd_weight: float = field(
        default=0.0,
        metadata={
            "help": "Share of a smaller doll's loss that is the divergence from the largest one's predictions, from "
            "0 to 1; the rest is the cross-entropy."
        },
    )
    kd_temperature: float = field(default=1.0, metadata={"help": "Temperature of the predictions in distillation."})
    split_batch: bool = field(
        default=False,
        metadata={
            "help": "Divide the rows of a batch among the levels of the step: with n levels and n times as many rows "
            "each level computes as many as without, all of them others."
        },
    )

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.kd_weight <= 1:
            raise ValueError(f"kd_weight must be from 0 to 1, but is {self.kd_weight}")
        if self.kd_temperature <= 0:
            raise ValueError(f"kd_temperature must be positive, but is {self.kd_temperature}")
        if self.split_batch and self.kd_weight:
            raise ValueError("split_batch gives each level rows of its own, but kd_weight compares levels on the same")
