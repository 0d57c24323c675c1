"""Arguments of the trainer of Delta encoders."""

from dataclasses import dataclass, field

from .matryoshka_arguments import MatryoshkaTrainingArguments


@dataclass
class DeltaTrainingArguments(MatryoshkaTrainingArguments):
    r"""
    Arguments of [`DeltaTrainer`].

    Parameters that control the objectives:
        enable_kd (`bool`, *optional*, defaults to `True`), alpha_kd, kd_temperature (`float`, *optional*, default to
            1.0): Distillation.
        enable_cscf (`bool`, *optional*, defaults to `False`), zeta_cscf (`float`, *optional*, defaults to 0.1),
            tap_layers (`list[int]`, *optional*): Cross-scale feature alignment.
        enable_mug (`bool`, *optional*, defaults to `False`), rho_mug (`float`, *optional*, defaults to 0.1),
            mug_margin (`float`, *optional*, defaults to 0.0): Monotonic upgrade hinge.

    Parameters that control the depth of the full budget in training:
        enable_delta_depth (`bool`, *optional*, defaults to `False`): Prefix-depth dropout.
        depth_dropout (`float`, *optional*, defaults to 0.5), depth_dropout_end (`float`, *optional*, defaults to 0.1),
            drop_path (`float`, *optional*, defaults to 0.2).

    Defaults that differ from `MatryoshkaTrainingArguments`: `level_sampling="sandwich"`.
    """

    enable_kd: bool = field(
        default=True,
        metadata={"help": "Distil into the budgets: from the full one of the same step, or from a larger model."},
    )
    alpha_kd: float = field(
        default=1.0,
        metadata={
            "help": "Weight of the distillation loss of a budget, that of its cross-entropy being 1; the two are "
            "averaged, so that 1 means one half each."
        },
    )
    kd_temperature: float = field(default=1.0, metadata={"help": "Temperature of both distributions in distillation."})
    enable_cscf: bool = field(
        default=False, metadata={"help": "Align the hidden states of the smaller budgets with those of the full one."}
    )
    zeta_cscf: float = field(default=0.1, metadata={"help": "Weight of the feature alignment."})
    tap_layers: list[int] | None = field(
        default=None,
        metadata={
            "help": "Layers after which hidden states are aligned, counted from 0; by default the last layer of every "
            "budget. A budget is aligned at those that it has."
        },
    )
    enable_mug: bool = field(
        default=False, metadata={"help": "Penalise tokens that a larger budget predicts worse than a smaller one."}
    )
    rho_mug: float = field(default=0.1, metadata={"help": "Weight of the upgrade hinge."})
    mug_margin: float = field(default=0.0, metadata={"help": "Nats by which the larger budget is asked to be better."})
    enable_delta_depth: bool = field(
        default=False, metadata={"help": "Run the full budget with only its first layers in some steps."}
    )
    depth_dropout: float = field(default=0.5, metadata={"help": "Share of such steps at the start of the training."})
    depth_dropout_end: float = field(default=0.1, metadata={"help": "Share of such steps at its end."})
    drop_path: float = field(
        default=0.2,
        metadata={"help": "In such a step, the chance to skip the deepest layer, at the end of the training."},
    )
    level_sampling: str = field(
        default="sandwich",
        metadata={
            "help": "Budgets trained in a step: 'all'; 'sandwich', the smallest, the largest and `levels_per_step` "
            "random ones between (arXiv 1903.05134); 'random', `levels_per_step` random ones."
        },
    )

    def __post_init__(self):
        if self.ddp_find_unused_parameters is None:
            # Each step runs the model several times, which DDP allows only if it does not look for unused parameters;
            # the full budget uses all of them.
            self.ddp_find_unused_parameters = False
        super().__post_init__()
        for name in ("alpha_kd", "zeta_cscf", "rho_mug", "mug_margin"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, but is {getattr(self, name)}")
        if self.kd_temperature <= 0:
            raise ValueError(f"kd_temperature must be positive, but is {self.kd_temperature}")
        for name in ("depth_dropout", "depth_dropout_end", "drop_path"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, but is {getattr(self, name)}")
