"""Arguments of the adaptor trainer."""

from dataclasses import dataclass, field, fields

from .matryoshka_arguments import MatryoshkaTrainingArguments


@dataclass
class AdaptorTrainingArguments(MatryoshkaTrainingArguments):
    r"""
    Arguments of [`AdaptorTrainer`]. An objective with weight 0 is not computed.

    Parameters that control the objectives, all means over a batch and over the levels:
        rank_distillation_weight (`float`, *optional*, defaults to 1.0)
        topk_weight, pairwise_weight, reconstruction_weight (`float`, *optional*, default to 0.0)
        contrastive_weight, ranking_weight (`float`, *optional*, default to 0.0): need labelled anchors.
        anchor_weight (`float`, *optional*, defaults to 10.0)

    Parameters that control the temperatures:
        rank_distillation_temperature, contrastive_temperature (`float`, *optional*, default to 0.05)
        ranking_temperature (`float`, *optional*, defaults to 1.0)

    Defaults that differ from `MatryoshkaTrainingArguments`: `learning_rate=1e-3`, `per_device_train_batch_size=256`,
    `per_device_eval_batch_size=256`.
    """

    rank_distillation_weight: float = field(
        default=1.0,
        metadata={
            "help": "Weight of the rank-preserving divergence: neighbour distribution at full width to prefixes."
        },
    )
    topk_weight: float = field(
        default=0.0, metadata={"help": "Weight of the similarity loss on corpus neighbours (arXiv 2407.20243, Eq. 2)."}
    )
    pairwise_weight: float = field(
        default=0.0, metadata={"help": "Weight of the similarity loss on all pairs (arXiv 2407.20243, Eq. 1)."}
    )
    reconstruction_weight: float = field(
        default=0.0, metadata={"help": "Weight of the change of the full-width embedding (arXiv 2407.20243, Eq. 3)."}
    )
    contrastive_weight: float = field(
        default=0.0, metadata={"help": "Weight of InfoNCE at every level, on anchors with relevant documents."}
    )
    ranking_weight: float = field(
        default=0.0,
        metadata={"help": "Weight of the pairwise logistic ranking loss (arXiv 2407.20243, Eq. 5), likewise."},
    )
    anchor_weight: float = field(
        default=10.0, metadata={"help": "Weight of the drift of full-width cosines; keeps an existing index usable."}
    )
    rank_distillation_temperature: float = field(
        default=0.05, metadata={"help": "Temperature of the neighbour distributions."}
    )
    contrastive_temperature: float = field(default=0.05, metadata={"help": "Temperature of InfoNCE."})
    ranking_temperature: float = field(
        default=1.0, metadata={"help": "Temperature of the ranking loss; the paper has 1."}
    )
    false_negative_margin: float = field(
        default=0.05,
        metadata={
            "help": "InfoNCE ignores an unlabelled candidate whose full-width cosine exceeds that of the closest "
            "relevant document by more than this."
        },
    )
    learning_rate: float = field(default=1e-3, metadata={"help": "The initial learning rate of the optimizer."})
    projection_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Learning rate of the projection (the weights that start as the SVD rotation); as the others by "
            "default."
        },
    )
    per_device_train_batch_size: int = field(default=256, metadata={"help": "Anchors in a training batch."})
    per_device_eval_batch_size: int = field(default=256, metadata={"help": "Anchors in an evaluation batch."})

    def __post_init__(self):
        super().__post_init__()
        names = [item.name for item in fields(self)]
        for name in names:
            if name.endswith("_temperature") and getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, but is {getattr(self, name)}")
        if self.projection_learning_rate is not None and self.projection_learning_rate < 0:
            raise ValueError(f"projection_learning_rate must not be negative, but is {self.projection_learning_rate}")
        weights = [name for name in names if name in OBJECTIVE_WEIGHTS]
        if any(getattr(self, name) < 0 for name in weights) or not any(getattr(self, name) for name in weights):
            raise ValueError(f"no weight may be negative and at least one must be positive: {', '.join(weights)}")


OBJECTIVE_WEIGHTS = (
    "rank_distillation_weight",
    "topk_weight",
    "pairwise_weight",
    "reconstruction_weight",
    "contrastive_weight",
    "ranking_weight",
    "anchor_weight",
)
