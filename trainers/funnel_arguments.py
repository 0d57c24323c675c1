"""Arguments of the trainer of funnels."""

from dataclasses import dataclass, field

from .matryoshka_arguments import MatryoshkaTrainingArguments


PREFIX_WEIGHTS = ("uniform", "linear", "sqrt")
WEIGHTS = (
    *("reconstruction_weight", "cascade_weight", "likelihood_weight", "latent_penalty_weight"),
    *("relational_weight", "decoded_relational_weight"),
)


@dataclass
class FunnelTrainingArguments(MatryoshkaTrainingArguments):
    r"""
    Arguments of [`FunnelTrainer`]. An objective with weight 0 is not computed.

    Parameters that control the objectives:
        reconstruction_weight (`float`, *optional*, defaults to 1.0): Of the mean over the levels.
        prefix_weights (`str`, *optional*, defaults to `"uniform"`): Weights of the levels, `"uniform"`, `"linear"` or
            `"sqrt"`.
        cascade_weight (`float`, *optional*, defaults to 0.0), likelihood_weight (`float`, *optional*, defaults to
            0.01), latent_penalty_weight (`float`, *optional*, defaults to 0.0)
        relational_weight (`float`, *optional*, defaults to 0.0): Of [`relational_distillation_loss`] between the
            latent of each level and the embeddings, a mean over the levels: what is near in a batch shall be near.
        decoded_relational_weight (`float`, *optional*, defaults to 0.0): The same of what the levels decode.
        temperature (`float`, *optional*, defaults to 0.05): Divides the cosines there.

    Parameters that control the terms of the cascade:
        cascade_decay (`float`, *optional*, defaults to 0.7): Weight of a stage, as a multiple of that before it.
        progressive (`bool`, *optional*, defaults to `False`): Instead, from 1 to 0.5 in the course of the training.

    Defaults that differ from `MatryoshkaTrainingArguments`: `learning_rate=1e-3`, `per_device_train_batch_size=1024`,
    `per_device_eval_batch_size=4096`.
    """

    reconstruction_weight: float = field(
        default=1.0,
        metadata={
            "help": "Weight of one minus the cosine of embedding and reconstruction, or of the squared distance where "
            "the geometry is euclidean, a mean over the levels."
        },
    )
    prefix_weights: str = field(
        default="uniform",
        metadata={
            "help": "Weights of the levels' reconstructions: 'uniform'; 'linear', growing with the level, as in the "
            "first cascading funnel; 'sqrt', with its square root. level_weights overrides it."
        },
    )
    cascade_weight: float = field(
        default=0.0,
        metadata={"help": "Weight of the squared distance of each stage to what the stages before predict."},
    )
    cascade_decay: float = field(
        default=0.7, metadata={"help": "Weight of a stage in that term, as a multiple of the stage's before it."}
    )
    progressive: bool = field(
        default=False,
        metadata={
            "help": "Let cascade_decay fall from 1 to 0.5 between 30% and 70% of the training: all stages first, then "
            "mostly the early ones."
        },
    )
    likelihood_weight: float = field(
        default=0.01,
        metadata={
            "help": "Weight of the negative log-likelihood a dimension: of a flow's embeddings; of the latents of the "
            "other kinds, which get no gradient from it."
        },
    )
    latent_penalty_weight: float = field(
        default=0.0, metadata={"help": "Weight of half the squared length of the latent (0.01 in the original)."}
    )
    relational_weight: float = field(
        default=0.0,
        metadata={
            "help": "Weight of the relational distillation of the latents of each level: what is near to what in a "
            "batch. For latents that are searched in."
        },
    )
    decoded_relational_weight: float = field(
        default=0.0,
        metadata={"help": "The same of what each level decodes, to search in that."},
    )
    temperature: float = field(default=0.05, metadata={"help": "Divides the cosines that are compared there."})
    learning_rate: float = field(default=1e-3, metadata={"help": "The initial learning rate of the optimizer."})
    per_device_train_batch_size: int = field(default=1024, metadata={"help": "Embeddings in a training batch."})
    per_device_eval_batch_size: int = field(default=4096, metadata={"help": "Embeddings in an evaluation batch."})

    def __post_init__(self):
        super().__post_init__()
        if self.prefix_weights not in PREFIX_WEIGHTS:
            raise ValueError(
                f"prefix_weights {self.prefix_weights!r} does not exist; choose one of {', '.join(PREFIX_WEIGHTS)}"
            )
        if any(getattr(self, name) < 0 for name in WEIGHTS) or not any(getattr(self, name) for name in WEIGHTS):
            raise ValueError(f"no weight may be negative and at least one must be positive: {', '.join(WEIGHTS)}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, but is {self.temperature}")
        if not 0 < self.cascade_decay <= 1:
            raise ValueError(f"cascade_decay must be in (0, 1], but is {self.cascade_decay}")
        if self.level_sampling != "all":
            raise ValueError("a funnel decodes all its levels at once; leave level_sampling at 'all'")
