"""Which levels a training step runs."""

import math
import random

from .matryoshka_arguments import MatryoshkaTrainingArguments


class LevelSampler:
    """Draws the levels of each step.

    A draw depends on the seed and the step only, so that all processes and all micro-batches of a step run the same
    levels and a resumed run draws what an uninterrupted one would have.

    Args:
        num_levels (`int`): Number of levels of the model.
        args ([`MatryoshkaTrainingArguments`]): Sampling, schedule and seed.

    Raises:
        ValueError: If `args.level_weights` does not name one weight, not all zero, for each level, or
            `args.level_probabilities` not one positive number.
    """

    def __init__(self, num_levels: int, args: MatryoshkaTrainingArguments):
        self.num_levels = num_levels
        self.args = args
        self.weights = args.level_weights or [1.0] * num_levels
        if len(self.weights) != num_levels or min(self.weights) < 0 or max(self.weights) == 0:
            raise ValueError(
                f"level_weights must hold {num_levels} numbers, none negative and not all zero (one a level, smallest "
                f"first), but is {args.level_weights}"
            )

        self.probabilities = args.level_probabilities or [1.0] * num_levels
        if len(self.probabilities) != num_levels or min(self.probabilities) <= 0:
            raise ValueError(
                f"level_probabilities must hold {num_levels} positive numbers (one a level, smallest first), but is "
                f"{args.level_probabilities}"
            )

    def active(self, progress: float) -> range:
        """Levels that the schedule lets in at `progress`, a number from 0 (start) to 1 (end of the training)."""
        share = min(1.0, progress / self.args.level_schedule_fraction)
        count = max(1, math.ceil(self.num_levels * share)) if share < 1 else self.num_levels
        if self.args.level_schedule == "ascending":
            return range(count)
        if self.args.level_schedule == "descending":
            return range(self.num_levels - count, self.num_levels)
        return range(self.num_levels)

    def sample(self, step: int, progress: float) -> list[int]:
        """Indices of the levels of a step, ascending."""
        active = list(self.active(progress))
        generator = random.Random(f"{self.args.seed}-{step}")
        if self.args.level_sampling == "sandwich":
            between = active[1:-1]
            return sorted({active[0], active[-1], *self._draw(generator, between)})
        if self.args.level_sampling == "random":
            return sorted(self._draw(generator, active))
        return active

    def _draw(self, generator: random.Random, levels: list[int]) -> list[int]:
        """`levels_per_step` of the levels, each at most once, by their probabilities."""
        left, drawn = list(levels), []
        while left and len(drawn) < self.args.levels_per_step:
            drawn += generator.choices(left, [self.probabilities[level] for level in left])
            left.remove(drawn[-1])
        return drawn
