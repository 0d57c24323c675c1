"""Arguments of the trainer of Matryoshka GPTs with a hierarchy of tokens."""

from dataclasses import dataclass, field

from .gpt_arguments import MatryoshkaGPTTrainingArguments


HIERARCHY_TARGETS = ("marginal", "soft")
HIERARCHY_TREES = ("whole", "prefix")
HIERARCHY_LINKAGES = ("average", "complete", "single", "ward", "weighted")


@dataclass
class HierarchyTrainingArguments(MatryoshkaGPTTrainingArguments):
    r"""
    Arguments of [`HierarchyTrainer`].

    Parameters that control the hierarchy:
        hierarchy_weight (`float`, *optional*, defaults to 0.1): Weight of the mean over the prefixes of their losses.
        hierarchy_targets (`str`, *optional*, defaults to `"marginal"`): `"marginal"` or `"soft"`.
        hierarchy_refresh_steps (`int`, *optional*, defaults to 100): Steps between two clusterings of the embeddings,
            where groups emerge from them.
        hierarchy_start_step (`int`, *optional*, defaults to 0): Step before which no group is learned. Embeddings that
            start at random have no groups, and would keep those that chance gave them.
        hierarchy_tree (`str`, *optional*, defaults to `"whole"`): `"whole"` or `"prefix"`.
        hierarchy_linkage (`str`, *optional*, defaults to `"ward"`): How clusters are joined: `"average"`,
            `"complete"`, `"single"`, `"ward"` or `"weighted"`.
        hierarchy_centre (`bool`, *optional*, defaults to `True`): Whether the mean of the embeddings is taken away
            before they are clustered.
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
    hierarchy_start_step: int = field(
        default=0, metadata={"help": "Step before which no group is learned; embeddings first need to mean something."}
    )
    hierarchy_tree: str = field(
        default="whole",
        metadata={
            "help": "Tree that emergent groups are cut from: that of the 'whole' embeddings, whose groups short "
            "prefixes then learn, or of each 'prefix' its own."
        },
    )
    hierarchy_linkage: str = field(
        default="ward",
        metadata={"help": "How clusters are joined: 'average', 'complete', 'single', 'ward' or 'weighted'."},
    )
    hierarchy_centre: bool = field(
        default=True, metadata={"help": "Whether the mean of the embeddings is taken away before clustering."}
    )

    def __post_init__(self):
        super().__post_init__()
        if self.hierarchy_weight <= 0:
            raise ValueError(f"hierarchy_weight must be positive, but is {self.hierarchy_weight}")
        if self.hierarchy_refresh_steps < 1:
            raise ValueError(f"hierarchy_refresh_steps must be at least 1, but is {self.hierarchy_refresh_steps}")
        if self.hierarchy_start_step < 0:
            raise ValueError(f"hierarchy_start_step must not be negative, but is {self.hierarchy_start_step}")
        for name, valid in (
            ("hierarchy_targets", HIERARCHY_TARGETS),
            ("hierarchy_tree", HIERARCHY_TREES),
            ("hierarchy_linkage", HIERARCHY_LINKAGES),
        ):
            if getattr(self, name) not in valid:
                raise ValueError(f"{name} {getattr(self, name)!r} does not exist; choose one of {', '.join(valid)}")
