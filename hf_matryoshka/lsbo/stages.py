"""Which coordinates a trial may set: the prefix that grows, one block after the other, or all from the start."""

from dataclasses import dataclass

from .checks import check_whole_numbers


MODES = ("nested", "frozen", "full")
# Trials of the eight stages of the first staged optimiser, 225 in all.
ORIGINAL_BUDGETS = (50, 40, 35, 30, 25, 20, 15, 10)


@dataclass(frozen=True)
class Stage:
    """A stage.

    Args:
        number (`int`): From 0.
        start, end (`int`): The coordinates from `start` up to `end` are set; those before `start` are those of the
            best
            trial so far, those from `end` on are 0.
        budget (`int`): Trials.
    """

    number: int
    start: int
    end: int
    budget: int


def plan_stages(dims: list[int], mode: str, trials: int, budgets: list[int] | None = None) -> list[Stage]:
    """The stages of a run.

    Args:
        dims (`list[int]`): Ends of the stages of the latent.
        mode (`str`): `"nested"`: a stage sets all coordinates up to its end; `"frozen"`: only those that the stages
            before it have not set; `"full"`: one stage sets all.
        trials (`int`): Trials in all.
        budgets (`list[int]`, *optional*): Trials of each stage; by default those of the first staged optimiser, in
            proportion.

    Raises:
        ValueError: If there is no such mode, there are fewer trials than stages, or the budgets do not add up.
    """
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} does not exist; choose one of {', '.join(MODES)}")
    ends = [dims[-1]] if mode == "full" else dims
    check_whole_numbers(trials=trials)
    if trials < len(ends):
        raise ValueError(f"{trials} trials are fewer than the {len(ends)} stages; give at least one a stage")
    if budgets is None:
        budgets = _in_proportion(len(ends), trials)
    whole = isinstance(budgets, (list, tuple)) and all(type(budget) is int for budget in budgets)
    if not whole or len(budgets) != len(ends) or min(budgets) < 1 or sum(budgets) != trials:
        raise ValueError(
            f"budgets must hold {len(ends)} positive numbers (one a stage) that add up to {trials}, but is {budgets!r}"
        )
    starts = [0, *ends] if mode == "frozen" else [0] * len(ends)
    return [Stage(*parts) for parts in zip(range(len(ends)), starts, ends, budgets, strict=False)]


def _in_proportion(stages: int, trials: int) -> list[int]:
    """The shares of the original's stages, of more or fewer of them, each at least one."""
    shares = [ORIGINAL_BUDGETS[min(number * len(ORIGINAL_BUDGETS) // stages, 7)] for number in range(stages)]
    counts = [max(1, trials * share // sum(shares)) for share in shares]
    # What rounding leaves goes to the first stages, and is taken from the largest.
    for number in range(trials - sum(counts)):
        counts[number % stages] += 1
    while sum(counts) > trials:
        counts[counts.index(max(counts))] -= 1
    return counts
