"""The options that say which budgets a model gets, the same in all recipes of Delta encoders."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass
class BudgetOptions:
    """Budgets, as one list or as the parallel lists of the original command line.

    Raises:
        ValueError: If options contradict each other, or the parallel lists are not equally long.
    """

    budgets: list[list] | None = field(
        default=None,
        metadata={"help": "Budgets width:heads:depth, smallest first, the last the full size; half, 3/4 and all."},
    )
    width_budgets: list[float] | None = field(
        default=None, metadata={"help": "Widths of the budgets (with head_budgets and depth_budgets)."}
    )
    head_budgets: list[int] | None = field(default=None, metadata={"help": "Heads of the budgets."})
    depth_budgets: list[int] | None = field(default=None, metadata={"help": "Layers of the budgets."})
    residual: str | None = field(
        default=None,
        metadata={"help": "'full' (default): the hidden size stays; 'joint': it follows the heads, always stock."},
    )
    layer_order: list[int] | None = field(
        default=None,
        metadata={
            "help": "All layers, from 0: a budget of d layers runs the first d of these; by default see order_layers."
        },
    )
    order_layers: bool | None = field(
        default=None,
        metadata={
            "help": "Choose by importance which layers the shallow budgets run, not the first ones; by default those "
            "of a checkpoint not nested yet."
        },
    )

    def __post_init__(self):
        if self.order_layers and self.layer_order is not None:
            raise ValueError("layer_order says which layers the budgets run; leave order_layers out")
        names = ("width_budgets", "head_budgets", "depth_budgets")
        parts = [getattr(self, name) for name in names]
        if not any(parts):
            return
        if self.budgets is not None:
            raise ValueError("give budgets, or width_budgets, head_budgets and depth_budgets, not both")
        counts = [len(part or ()) for part in parts]
        if len(set(counts)) > 1:
            raise ValueError(
                f"width_budgets, head_budgets and depth_budgets must be equally long, but have {counts[0]}, "
                f"{counts[1]} and {counts[2]} values"
            )
        self.budgets = [list(entry) for entry in zip(*parts, strict=True)]
        for name in names:
            setattr(self, name, None)


def base_budgets(config: "PreTrainedConfig", base_ratio: float | None, base_heads: int | None) -> list[list]:
    """Three budgets: the base with half of the layers, the full size, and one half way between.

    Args:
        config (`PreTrainedConfig`): A nested one with the full size; its smallest budget has the heads of the base, if
            they are not given.
        base_ratio (`float`, *optional*): Share of the feed-forward width that the base has; by default half.
        base_heads (`int`, *optional*): Its heads.

    Raises:
        ValueError: If the model has fewer heads.
    """
    width, heads, depth = config.budgets[-1]
    ratio, base = base_ratio or 0.5, base_heads or config.budgets[0][1]
    if base > heads:
        raise ValueError(f"base_heads {base} is more than the {heads} heads of the model")
    budgets = []
    for share in (0.0, 0.5, 1.0):
        layers, part = max(1, round((1 + share) / 2 * depth)), ratio + share * (1 - ratio)
        widths = part * width if isinstance(width, (int, float)) else [part * each for each in width[:layers]]
        budgets.append([widths, round(base + share * (heads - base)), layers])
    return [budget for number, budget in enumerate(budgets) if budget not in budgets[:number]]
