"""Which layers the full budget runs in a training step."""

import math
import random
from collections.abc import Sequence


def depth_dropout_rate(progress: float, start: float, end: float) -> float:
    """Chance that the full budget is shortened in a step, from `start` to `end` in a straight line.

    Args:
        progress (`float`): 0 at the start of the training, 1 at its end.
        start, end (`float`): The chance there.
    """
    return start + (end - start) * min(1.0, max(0.0, progress))


def depth_weights(depths: Sequence[int], full_depth: int, smallest: float = 0.5) -> dict[int, float]:
    """Chance of each depth to which the full budget may be shortened.

    The smallest has `smallest`, the others the rest in equal parts: the first layers serve every budget, and a prefix
    of them has the most to learn.

    Args:
        depths (`Sequence[int]`): Depths of the levels.
        full_depth (`int`): That of the full one, which is not among the result.
        smallest (`float`, *optional*, defaults to 0.5): Chance of the smallest, where there are others.
    """
    shorter = sorted({depth for depth in depths if depth < full_depth})
    if len(shorter) < 2:
        return dict.fromkeys(shorter, 1.0)
    rest = (1 - smallest) / (len(shorter) - 1)
    return {depth: smallest if depth == shorter[0] else rest for depth in shorter}


def survival_probability(layer: int, num_layers: int, progress: float, drop_path: float) -> float:
    """`1 - p_max S(t) D(l)`: chance that a layer is run in a shortened step (LayerSkip, arXiv 2404.16710, Eq. 2-4).

    `D(l) = exp(l ln 2 / (L - 1)) - 1` is 0 at the first layer, which is always run, and 1 at the last; `S(t)`, of the
    same form over the training, starts at 0 and ends at 1.

    Args:
        layer (`int`): The layer, counted from 0.
        num_layers (`int`): Layers of the full budget.
        progress (`float`): 0 at the start of the training, 1 at its end.
        drop_path (`float`): `p_max`, the chance to skip the last layer at the end.
    """
    by_layer = math.expm1(layer * math.log(2) / max(1, num_layers - 1))
    return 1 - drop_path * math.expm1(min(1.0, progress) * math.log(2)) * by_layer


def draw_layers(
    seed: int,
    step: int,
    progress: float,
    order: Sequence[int],
    depths: Sequence[int],
    *,
    start: float = 0.5,
    end: float = 0.1,
    drop_path: float = 0.2,
) -> tuple[int, ...] | None:
    """Layers that the full budget runs in a step; `None` where it runs all of them.

    With chance [`depth_dropout_rate`] it is shortened to the layers of a smaller level, the first of `order` (nested
    dropout, arXiv 1402.0915, of depth; LayerDrop, arXiv 1909.11556), and each of these is run with its
    [`survival_probability`]. The draw depends on seed and step alone: all processes and all micro-batches of a step
    have the same, and so has a run that was resumed.

    Args:
        seed, step (`int`): What is drawn from.
        progress (`float`): 0 at the start of the training, 1 at its end.
        order (`Sequence[int]`): The layers of the full budget, those that the smallest levels run first.
        depths (`Sequence[int]`): Depths of the levels.
        start, end (`float`, *optional*, default to 0.5 and 0.1): As in [`depth_dropout_rate`].
        drop_path (`float`, *optional*, defaults to 0.2): As in [`survival_probability`].
    """
    weights = depth_weights(depths, len(order))
    generator = random.Random(f"depth-{seed}-{step}")
    if not weights or generator.random() >= depth_dropout_rate(progress, start, end):
        return None
    (depth,) = generator.choices(list(weights), list(weights.values()))
    return tuple(
        layer
        for layer in sorted(order[:depth])
        if generator.random() < survival_probability(layer, len(order), progress, drop_path)
    )
