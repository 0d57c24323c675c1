"""Evaluating candidates, in this process or by others, some of which may die.

A process that unpickles an evaluation imports this file: it loads no torch.
"""

from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor
from typing import Any

from .trial import Trial


class Workers:
    """Evaluates batches, here or by an executor.

    Args:
        objective (`Callable`), executor (`Executor`, or a function that makes one, *optional*), max_retries (`int`):
            As those of [`~lsbo.optimizer.Optimizer.optimize`].
    """

    def __init__(
        self,
        objective: Callable[[Any], float],
        executor: Executor | Callable[[], Executor] | None,
        max_retries: int,
    ):
        self.objective, self.max_retries = objective, max_retries
        self.make = executor if executor is not None and not isinstance(executor, Executor) else None
        self.executor = executor if isinstance(executor, Executor) else None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        if self.make is not None and self.executor is not None:
            self.executor.shutdown(cancel_futures=True)

    def evaluate(self, trials: list[Trial]) -> list[tuple[float | None, str | None]]:
        """Value and reason of each, in the order of the trials."""
        if self.make is None and self.executor is None:
            return [_guarded(self.objective, trial.candidate) for trial in trials]
        found: dict[int, tuple[float | None, str | None]] = {}
        for attempt in range(self.max_retries + 1):
            # After a death one at a time: the other trials are not to die with the one that kills.
            waiting = [trial for trial in trials if trial.id not in found]
            for group in [waiting] if attempt == 0 else [[trial] for trial in waiting]:
                found |= self._run(group)
        return [found.get(trial.id, (None, "its worker died")) for trial in trials]

    def _run(self, trials: list[Trial]) -> dict[int, tuple[float | None, str | None]]:
        """What the trials whose workers did not die gave."""
        if self.executor is None:
            self.executor = self.make()
        found = {}
        try:
            futures = [(t.id, self.executor.submit(_guarded, self.objective, t.candidate)) for t in trials]
            for number, future in futures:
                found[number] = future.result()
        except BrokenExecutor:
            if self.make is None:
                raise
            self.executor = None
        return found


def _guarded(objective: Callable[[Any], float], candidate: Any) -> tuple[Any, str | None]:
    try:
        return objective(candidate), None
    except Exception as error:
        return None, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
