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
        enable_delta_residual (`bool`, *optional*, defaults to `False`), beta_delta (`float`, *optional*, defaults to
            0.7): Delta residual.

    Parameters that control the depth of the full budget in training:
        enable_delta_depth (`bool`, *optional*, defaults to `False`): Prefix-depth dropout.
        depth_dropout (`float`, *optional*, defaults to 0.5), depth_dropout_end (`float`, *optional*, defaults to 0.1),
            drop_path (`float`, *optional*, defaults to 0.2).

    Parameters that control token routing:
        enable_token_delta (`bool`, *optional*, defaults to `False`), token_shares (`list[float]`, *optional*, defaults
            to `[0.25, 0.5, 0.75, 1.0]`), preview_weight (`float`, *optional*, defaults to 0.1), gamma_budget (`float`,
            *optional*, defaults to 0.0): See [`~modeling.token_routing.TokenRouting`].

    Parameters that control the phases (see [`~trainers.three_phases.phase_weights`]):
        enable_three_phase (`bool`, *optional*, defaults to `False`), phase_boundaries (`list[float]`, *optional*,
            defaults to `[1/3, 2/3]`): Packing, residualisation and calibration, and where the last two begin.
        oversample_smallest (`float`, *optional*, defaults to 0.5): In the first phase.
        base_lr_factor (`float`, *optional*, defaults to 0.1): In the second phase.
        calibration_lr_factor (`float`, *optional*, defaults to 0.3): In the third phase.
        routing_temperature (`float`, *optional*, defaults to 1.0), routing_temperature_end (`float`, *optional*,
            defaults to 0.1): Of token routing; falls in the third phase.

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
    enable_delta_residual: bool = field(
        default=False,
        metadata={
            "help": "Make what a budget adds to the smallest one explain what the full one adds; with a teacher of "
            "the same shape, what the teacher has beyond it."
        },
    )
    beta_delta: float = field(default=0.7, metadata={"help": "Weight of the delta residual."})
    enable_delta_depth: bool = field(
        default=False, metadata={"help": "Run the full budget with only its first layers in some steps."}
    )
    depth_dropout: float = field(default=0.5, metadata={"help": "Share of such steps at the start of the training."})
    depth_dropout_end: float = field(default=0.1, metadata={"help": "Share of such steps at its end."})
    drop_path: float = field(
        default=0.2,
        metadata={"help": "In such a step, the chance to skip the deepest layer, at the end of the training."},
    )
    enable_three_phase: bool = field(
        default=False,
        metadata={
            "help": "Train in three phases: pack what matters into the smallest budget, then learn what the others "
            "add, then calibrate at a low learning rate. Of the parts that are enabled, the delta residual starts in "
            "the second phase, alignment and hinge in the third."
        },
    )
    phase_boundaries: list[float] = field(
        default_factory=lambda: [1 / 3, 2 / 3],
        metadata={"help": "Parts of the training after which the second and the third phase begin."},
    )
    oversample_smallest: float = field(
        default=0.5,
        metadata={
            "help": "In the first phase, how often the smallest budget is drawn by level_sampling 'random'; 'all' and "
            "'sandwich' train it in every step."
        },
    )
    base_lr_factor: float = field(
        default=0.1,
        metadata={
            "help": "In the second phase, factor on the learning rate of what the smallest budget reads; 0 freezes it."
        },
    )
    calibration_lr_factor: float = field(
        default=0.3, metadata={"help": "In the third phase, factor on the learning rate of the schedule."}
    )
    enable_token_delta: bool = field(
        default=False,
        metadata={
            "help": "Compute what lies beyond the smallest budget for some tokens of a text only, those for which it "
            "is predicted to do the most."
        },
    )
    token_shares: list[float] = field(
        default_factory=lambda: [0.25, 0.5, 0.75, 1.0],
        metadata={"help": "Shares of these tokens; each step draws one."},
    )
    preview_weight: float = field(default=0.1, metadata={"help": "Weight of the loss of these predictions."})
    gamma_budget: float = field(
        default=0.0, metadata={"help": "Weight of the penalty for more FLOPs than the share of a step stands for."}
    )
    routing_temperature: float = field(
        default=1.0, metadata={"help": "How soft token routing chooses; until the third phase, if there are phases."}
    )
    routing_temperature_end: float = field(
        default=0.1, metadata={"help": "Temperature of token routing at the end of the third phase."}
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
        for name in ("fsdp", "deepspeed"):
            if self.enable_three_phase and getattr(self, name):
                raise ValueError(
                    f"enable_three_phase slows the leading slices of whole weights, which {name} does not keep on any "
                    "device; train without it"
                )
        super().__post_init__()
        if not self.token_shares or not all(0 < share <= 1 for share in self.token_shares):
            raise ValueError(f"token_shares must be numbers above 0 and up to 1, but is {self.token_shares}")
        names = ("alpha_kd", "zeta_cscf", "rho_mug", "mug_margin", "beta_delta", "preview_weight", "gamma_budget")
        for name in names:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, but is {getattr(self, name)}")
        for name in ("kd_temperature", "routing_temperature", "routing_temperature_end"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, but is {getattr(self, name)}")
        for name in ("depth_dropout", "depth_dropout_end", "drop_path", "base_lr_factor", "calibration_lr_factor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, but is {getattr(self, name)}")
        if not 0 < self.oversample_smallest < 1:
            raise ValueError(f"oversample_smallest must be above 0 and below 1, but is {self.oversample_smallest}")
        boundaries = self.phase_boundaries
        if len(boundaries) != 2 or not 0 < boundaries[0] < boundaries[1] < 1:
            raise ValueError(
                f"phase_boundaries must be two numbers between 0 and 1, the smaller first, but is {boundaries}"
            )
        if self.enable_three_phase and self.level_schedule != "constant":
            raise ValueError(
                f"enable_three_phase is a schedule of its own: use level_schedule 'constant', not "
                f"{self.level_schedule!r}"
            )
