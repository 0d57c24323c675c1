"""Arguments of the trainer of Matryoshka GPTs with a hierarchy of tokens."""

from dataclasses import dataclass, field

from .gpt_arguments import MatryoshkaGPTTrainingArguments


HIERARCHY_TARGETS = ("marginal", "soft")


@dataclass
class HierarchyTrainingArguments(MatryoshkaGPTTrainingArguments):
    r"""
    Arguments of [`HierarchyTrainer`].

    Parameters that control the hierarchy:
        hierarchy_weight (`float`, *optional*, defaults to 0.1): Weight of the mean over the prefixes of their losses.
        hierarchy_targets (`str`, *optional*, defaults to `"marginal"`): `"marginal"` or `"soft"`.
        hierarchy_refresh_steps (`int`, *optional*, defaults to 100): Steps between two clusterings of the embeddings,
            where groups emerge from them.
    """

    hierarchy_weight: float = field(
        default=0.1, metadata={"help": "Weight of the losses of the prefixes on groups of tokens, a mean over them."}
    )
    hierarchy_targets: str = field(
        default="marginal",
        metadata={"help": "'marginal': predict the group of the next token; 'soft': and each token of it alike."},
    )
    hierarchy_refresh_steps: int = field(
        default=100, metadata={"help": "Steps between two clusterings of the embeddings, where groups emerge."}
    )

    def __post_init__(self):
        super().__post_init__()
        if self.hierarchy_weight <= 0:
            raise ValueError(f"hierarchy_weight must be positive, but is {self.hierarchy_weight}")
        if self.hierarchy_targets not in HIERARCHY_TARGETS:
            raise ValueError(
                f"hierarchy_targets {self.hierarchy_targets!r} does not exist; choose one of "
                f"{', '.join(HIERARCHY_TARGETS)}"
            )
        if self.hierarchy_refresh_steps < 1:
            raise ValueError(f"hierarchy_refresh_steps must be at least 1, but is {self.hierarchy_refresh_steps}")
