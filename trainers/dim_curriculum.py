"""Which output dimensions a training step has, and how much the loss of each counts."""

import math
import random
from collections.abc import Sequence

from .mamba_arguments import MambaTrainingArguments


def dim_factors(step: int, max_steps: int, dims: Sequence[int], args: MambaTrainingArguments) -> dict[int, float]:
    """The dimensions of a step with a factor on the loss of each: a pure function of the step, so that a resumed run
    has those of an uninterrupted one.

    | `dim_curriculum` | dimensions |
    |---|---|
    | `"joint"` | all, always (arXiv 2205.13147) |
    | `"bottom_up"` | the smallest; the next one joins at equal parts of the first `curriculum_fraction` of the steps |
    | `"top_down"` | likewise from the largest: the order of SMEC (arXiv 2510.12474), whose earlier ones stay on here |
    | `"sandwich"` | the smallest, the largest and `dims_per_step` others, drawn by the seed and the step |

    The factor is 1, but for a dimension that joins: then it rises in equal steps over the first `curriculum_warmup` of
    its part. This warm-up is on the weight of the new loss and not on the learning rate, which would also slow down
    what is trained already. What a new dimension asks of the blocks at first comes from random weights of its band, so
    its pull is kept small beside that of the others. The band itself does not notice under AdamW, which divides a
    gradient by its own size: it learns at the full rate at once.

    Args:
        step (`int`): Optimizer steps done.
        max_steps (`int`): Those of the whole training.
        dims (`Sequence[int]`): The dimensions of the model, the smallest first.
        args ([`MambaTrainingArguments`]): The curriculum and the seed.

    Returns:
        `dict[int, float]`: The factor, above 0 and up to 1, of each dimension of the step, the smallest first.
    """
    if args.dim_curriculum == "sandwich":
        between = list(dims[1:-1])
        drawn = random.Random(f"{args.seed}-dims-{step}").sample(between, min(args.dims_per_step, len(between)))
        return dict.fromkeys(sorted({dims[0], dims[-1], *drawn}), 1.0)
    if args.dim_curriculum == "joint":
        return dict.fromkeys(dims, 1.0)
    order = list(dims) if args.dim_curriculum == "bottom_up" else list(dims)[::-1]
    part = args.curriculum_fraction * max(1, max_steps) / len(order)
    warmup = max(1, round(args.curriculum_warmup * part))
    factors = {order[0]: 1.0}
    for number, dim in enumerate(order[1:], start=1):
        done = step - math.ceil(number * part)
        if done >= 0:
            factors[dim] = min(1.0, (done + 1) / warmup)
    return dict(sorted(factors.items()))


def checked_dim_weights(dims: Sequence[int], args: MambaTrainingArguments) -> dict[int, float]:
    """The weight of each dimension's loss.

    Raises:
        ValueError: If `args.dim_weights` does not name one positive number for each dimension.
    """
    weights = args.dim_weights or [1.0] * len(dims)
    if len(weights) != len(dims) or min(weights) <= 0:
        raise ValueError(
            f"dim_weights must hold {len(dims)} positive numbers (one a dimension, smallest first), but is "
            f"{args.dim_weights}"
        )
    return dict(zip(dims, weights, strict=True))
