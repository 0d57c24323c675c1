"""Arguments of the trainer of nested sentence encoders."""

from dataclasses import dataclass, field

from .matryoshka_arguments import MatryoshkaTrainingArguments


@dataclass
class DeltaEmbeddingTrainingArguments(MatryoshkaTrainingArguments):
    r"""
    Arguments of [`DeltaEmbeddingTrainer`]. An objective with weight 0 is not computed.

    Parameters that control the objectives:
        cosine_weight (`float`, *optional*, defaults to 10.0), relational_weight (`float`, *optional*, defaults to
            1.0): Of the embedding of a budget.
        prefix_weight (`float`, *optional*, defaults to 0.5): Of the prefixes of an embedding.
        temperature (`float`, *optional*, defaults to 0.05): Of the relational distillation.

    Defaults that differ from `MatryoshkaTrainingArguments`: `level_sampling="random"` with `levels_per_step=1`, so
    that `level_probabilities` says how the compute is shared; `train_sampling_strategy="group_by_length"`.
    """

    cosine_weight: float = field(
        default=10.0, metadata={"help": "Weight of one minus the cosine to the teacher's embedding."}
    )
    relational_weight: float = field(
        default=1.0, metadata={"help": "Weight of the relational distillation: what is near to what in a batch."}
    )
    prefix_weight: float = field(
        default=0.5,
        metadata={"help": "Weight of the relational distillation of one trained prefix a step, drawn at random."},
    )
    temperature: float = field(default=0.05, metadata={"help": "Temperature of the relational distillation."})
    level_sampling: str = field(
        default="random",
        metadata={
            "help": "Budgets trained in a step: 'all'; 'sandwich', the smallest, the largest and `levels_per_step` "
            "random ones between (arXiv 1903.05134); 'random', `levels_per_step` random ones."
        },
    )
    levels_per_step: int = field(
        default=1, metadata={"help": "Number of budgets drawn a step by level_sampling 'sandwich' and 'random'."}
    )
    train_sampling_strategy: str = field(
        default="group_by_length",
        metadata={"help": "Sampler of the training batches; by default texts of about the same length."},
    )

    def __post_init__(self):
        super().__post_init__()
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, but is {self.temperature}")
        weights = {name: getattr(self, name) for name in ("cosine_weight", "relational_weight", "prefix_weight")}
        if min(weights.values()) < 0 or not self.cosine_weight + self.relational_weight:
            raise ValueError(
                "cosine_weight, relational_weight and prefix_weight must not be negative, and one of the first two "
                f"must be positive, but they are {', '.join(map(str, weights.values()))}"
            )
