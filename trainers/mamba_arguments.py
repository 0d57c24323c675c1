"""Arguments of the trainer of Matryoshka Mamba encoders."""

from dataclasses import dataclass, field

from .matryoshka_arguments import MatryoshkaTrainingArguments


DIM_CURRICULA = ("joint", "bottom_up", "top_down", "sandwich")
OBJECTIVE_WEIGHTS = ("contrastive_weight", "mse_weight", "cosine_weight", "relational_weight", "consistency_weight")


@dataclass
class MambaTrainingArguments(MatryoshkaTrainingArguments):
    r"""
    Arguments of [`MambaTrainer`]. The levels of a step are widths; an objective with weight 0 is not computed.

    Parameters that control the objectives of an output dimension:
        contrastive_weight (`float`, *optional*, defaults to 1.0): On batches with pairs.
        mse_weight (`float`, *optional*, defaults to 1.0), cosine_weight (`float`, *optional*, defaults to 10.0): Where
            the dimension is the teacher's.
        relational_weight (`float`, *optional*, defaults to 1.0): At every dimension.
        consistency_weight (`float`, *optional*, defaults to 0.1): At every dimension but the largest.
        contrastive_temperature, temperature (`float`, *optional*, default to 0.05): The latter of the relational
            terms.

    Parameters that control the dimensions of a step (see [`~trainers.dim_curriculum.dim_factors`]):
        dim_curriculum (`str`, *optional*, defaults to `"joint"`): `"joint"`, `"bottom_up"`, `"top_down"` or
            `"sandwich"`.
        dim_weights (`list[float]`, *optional*): Weight of each dimension's loss, the smallest first.
        curriculum_fraction (`float`, *optional*, defaults to 0.5), curriculum_warmup (`float`, *optional*, defaults to
            0.2): Of `"bottom_up"` and `"top_down"`.
        dims_per_step (`int`, *optional*, defaults to 2): Of `"sandwich"`.

    Parameters that control what is logged:
        gradient_conflict_steps (`int`, *optional*, defaults to 0): Steps from one measurement to the next.

    Defaults that differ from `MatryoshkaTrainingArguments`: `train_sampling_strategy="group_by_length"`.
    """

    contrastive_weight: float = field(
        default=1.0, metadata={"help": "Weight of InfoNCE at every dimension, on batches that have pairs."}
    )
    mse_weight: float = field(
        default=1.0,
        metadata={
            "help": "Weight of the squared distance to the teacher's embedding where the dimension is the teacher's; "
            "of unit vectors this is twice the cosine term."
        },
    )
    cosine_weight: float = field(
        default=10.0,
        metadata={"help": "Weight of one minus the cosine to the teacher's embedding where the dimension is its."},
    )
    relational_weight: float = field(
        default=1.0,
        metadata={
            "help": "Weight of the relational distillation at every dimension: what is near to what in a batch."
        },
    )
    consistency_weight: float = field(
        default=0.1,
        metadata={"help": "Weight of the smaller dimensions' agreement with the largest, which it leaves alone."},
    )
    contrastive_temperature: float = field(default=0.05, metadata={"help": "Temperature of InfoNCE."})
    temperature: float = field(
        default=0.05, metadata={"help": "Temperature of relational distillation and consistency."}
    )
    dim_curriculum: str = field(
        default="joint",
        metadata={
            "help": "Output dimensions trained in a step: 'joint', all; 'bottom_up', the smallest at first, then the "
            "next ones too; 'top_down', the largest at first (arXiv 2510.12474); 'sandwich', the smallest, the "
            "largest and `dims_per_step` random ones between."
        },
    )
    dim_weights: list[float] | None = field(
        default=None,
        metadata={"help": "Weight of each dimension's loss, smallest first; equal weights by default."},
    )
    curriculum_fraction: float = field(
        default=0.5,
        metadata={"help": "Part of the training in whose equal parts dim_curriculum adds one dimension each."},
    )
    curriculum_warmup: float = field(
        default=0.2,
        metadata={"help": "Part of such a part in which the weight of the new dimension rises to its full value."},
    )
    dims_per_step: int = field(
        default=2, metadata={"help": "Number of dimensions drawn a step by dim_curriculum 'sandwich'."}
    )
    gradient_conflict_steps: int = field(
        default=0,
        metadata={"help": "Measure every so many steps how far the gradients of the dimensions agree; 0: never."},
    )
    train_sampling_strategy: str = field(
        default="group_by_length",
        metadata={"help": "Sampler of the training batches; by default texts of about the same length."},
    )

    def __post_init__(self):
        super().__post_init__()
        weights = [getattr(self, name) for name in OBJECTIVE_WEIGHTS]
        if min(weights) < 0 or not any(weights[:-1]):
            raise ValueError(
                f"{', '.join(OBJECTIVE_WEIGHTS)} must not be negative, and one of the first four must be positive, "
                f"but they are {', '.join(map(str, weights))}"
            )
        for name in ("contrastive_temperature", "temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, but is {getattr(self, name)}")
        if self.dim_curriculum not in DIM_CURRICULA:
            raise ValueError(
                f"dim_curriculum {self.dim_curriculum!r} does not exist; choose one of {', '.join(DIM_CURRICULA)}"
            )
        if not 0 < self.curriculum_fraction <= 1:
            raise ValueError(f"curriculum_fraction must be in (0, 1], but is {self.curriculum_fraction}")
        if not 0 <= self.curriculum_warmup <= 1:
            raise ValueError(f"curriculum_warmup must be in [0, 1], but is {self.curriculum_warmup}")
        for name, least in (("dims_per_step", 1), ("gradient_conflict_steps", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, but is {getattr(self, name)}")
