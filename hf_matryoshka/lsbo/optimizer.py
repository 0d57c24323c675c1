"""The loop that all optimisers share: ask for candidates, tell their values, keep everything on disk."""

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from botorch.models.model import Model
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from tqdm.auto import tqdm

from ..data.files import write_beside
from .checks import check_switches, check_whole_numbers, is_number
from .search_space import SearchSpace
from .surrogates import fit_surrogate
from .trial import COMPLETE, FAILED, PENDING, Trial
from .workers import Workers


STATE, ARRAYS = "state.json", "trials.safetensors"


class Optimizer(ABC):
    """Proposes candidates of a [`SearchSpace`] and learns from their values.

    `ask` and `tell` may be called in any order: several candidates may be open, told later, in part or never. After
    every `tell` the state is in `folder`, and an optimiser with the same arguments goes on from there to the same
    candidates.

    Args:
        space ([`SearchSpace`]): Where to look.
        maximize (`bool`): Whether larger values are better.
        trials (`int`, *optional*, defaults to 225): Trials that are planned.
        seed (`int`, *optional*, defaults to 0): Of everything random.
        folder (`str` or `Path`, *optional*): Where the state is kept; nowhere by default.

    Raises:
        ValueError: If an argument has no valid value, or the folder holds the state of another run.
    """

    # How a user names it.
    name: str

    def __init__(
        self,
        space: SearchSpace,
        *,
        maximize: bool,
        trials: int = 225,
        seed: int = 0,
        folder: str | Path | None = None,
    ):
        check_switches(maximize=maximize)
        check_whole_numbers(trials=trials, seed=seed)
        if trials is None or trials < 1:
            raise ValueError(f"trials must be at least 1, but is {trials}")
        if seed is None or seed < 0:
            raise ValueError(f"seed must be at least 0, but is {seed}")
        self.space, self.maximize, self.planned, self.seed = space, maximize, trials, seed
        self.folder = None if folder is None else Path(folder)
        self.trials: list[Trial] = []
        # Proposals of a text that was proposed before.
        self.duplicates = 0

    def settings(self) -> dict[str, Any]:
        """What must be equal for a stored run to go on."""
        own = {"optimizer": self.name, "maximize": self.maximize, "trials": self.planned, "seed": self.seed}
        return own | {"space": self.space.fingerprint()}

    @abstractmethod
    def _propose(self, q: int) -> list[Trial]:
        """New trials, at most `q`, with their coordinates, stage and origin; the rest is filled in."""

    def ask(self, q: int = 1) -> list[Trial]:
        """The next candidates.

        Args:
            q (`int`, *optional*, defaults to 1): How many at most.

        Returns:
            `list[Trial]`: Pending trials.

        Raises:
            ValueError: If `q` is no whole number from 1 on.
        """
        check_whole_numbers(q=q)
        if q is None or q < 1:
            raise ValueError(f"q must be at least 1, but is {q}")
        refused, start = self.duplicates, time.perf_counter()
        found = self._propose(q)
        for trial in found:
            trial.seconds = (time.perf_counter() - start) / len(found)
        if found:
            found[0].refused = self.duplicates - refused
        self.trials += found
        return found

    def tell(
        self,
        trial: Trial | int,
        value: float | None = None,
        variance: float | None = None,
        reason: str | None = None,
    ) -> None:
        """The value of a candidate.

        Args:
            trial ([`Trial`] or `int`): The candidate, or its id.
            value (`float`, *optional*): What the objective gave; without one, with NaN or infinity the trial has
                failed.
            variance (`float`, *optional*): Of the noise in the value.
            reason (`str`, *optional*): Why it failed.

        Raises:
            ValueError: If there is no such trial, it was told before, or value or variance is no number.
        """
        number = trial.id if isinstance(trial, Trial) else trial
        check_whole_numbers(trial=number)
        if number is None or not 0 <= number < len(self.trials):
            raise ValueError(f"trial {number} does not exist; there are {len(self.trials)}")
        own = self.trials[number]
        if own.status != PENDING:
            raise ValueError(f"trial {number} was told before")
        value, reason = _checked(value, reason)
        if variance is not None and not (is_number(variance) and variance >= 0):
            raise ValueError(f"variance must be a number from 0 on, but is {variance!r}")
        own.status = FAILED if value is None else COMPLETE
        own.value, own.variance, own.reason = value, None if value is None else variance, reason
        if self.folder is not None:
            self.save()

    @property
    def completed(self) -> list[Trial]:
        """Trials with a value."""
        return [trial for trial in self.trials if trial.status == COMPLETE]

    @property
    def best(self) -> Trial | None:
        """The trial with the best value; the first of equals."""
        sign = 1 if self.maximize else -1
        return max(self.completed, key=lambda trial: sign * trial.value, default=None)

    def model(self) -> Model:
        """A fitted model of the values of all trials, which says how far they can be predicted: of an optimiser that
        has none, BoTorch's default of the points."""
        values = torch.tensor([trial.value for trial in self.completed], dtype=torch.float64)
        return fit_surrogate(self._set_coordinates(np.stack([trial.coordinates for trial in self.completed])), values)

    def _set_coordinates(self, rows: np.ndarray) -> torch.Tensor:
        """Points of the cube without the coordinates that no trial has set, which carry nothing."""
        return self.space.to_unit(torch.from_numpy(rows))[:, : max(trial.active_dim for trial in self.completed)]

    def best_values(self) -> list[float]:
        """The best value after each trial, NaN as long as there is none."""
        found, best = [], math.nan
        pick = max if self.maximize else min
        for trial in self.trials:
            if trial.status == COMPLETE:
                best = trial.value if math.isnan(best) else pick(best, trial.value)
            found.append(best)
        return found

    def optimize(
        self,
        objective: Callable[[Any], float],
        *,
        q: int = 1,
        executor: Executor | Callable[[], Executor] | None = None,
        max_retries: int = 2,
        progress: bool = True,
    ) -> Trial:
        """Asks, evaluates and tells until the planned trials are there.

        Args:
            objective (`Callable`): A number for a candidate: a text, or an embedding of shape `(embedding_dim,)`. One
                that raises, or gives NaN, is a failed trial, and the run goes on.
            q (`int`, *optional*, defaults to 1): Candidates that are evaluated at once.
            executor (`concurrent.futures.Executor`, or a function that makes one, *optional*): What evaluates them.
                Where a worker dies, a function is asked for a new one and the open trials are evaluated again.
            max_retries (`int`, *optional*, defaults to 2): How often, before a trial has failed.
            progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar with the best value.

        Returns:
            [`Trial`]: The best one.

        Raises:
            ValueError: If `q` is below 1, no trial has a value, or the objective's values are no numbers.
            BrokenExecutor: If a worker dies in an executor that cannot be made anew; the state holds its trials.
        """
        check_whole_numbers(q=q)
        if q is None or q < 1:
            raise ValueError(f"q must be at least 1, but is {q}")
        workers = Workers(objective, executor, max_retries)
        with tqdm(total=self.planned, initial=self._told(), desc=self.name, disable=not progress) as bar, workers:
            while (left := self.planned - self._told()) > 0:
                # Those that an interrupted run left open come first.
                batch = [trial for trial in self.trials if trial.status == PENDING] or self.ask(min(q, left))
                for trial, (value, reason) in zip(batch, workers.evaluate(batch), strict=True):
                    self.tell(trial, value, reason=reason)
                    bar.update()
                if self.best is not None:
                    bar.set_postfix(best=f"{self.best.value:.4g}")
        if self.best is None:
            raise ValueError(f"none of {len(self.trials)} trials has a value; the last one: {self.trials[-1].reason}")
        return self.best

    def _told(self) -> int:
        return sum(trial.status != PENDING for trial in self.trials)

    def _trials(self, coordinates: Iterable[np.ndarray], stage: int, active_dim: int, origin: str) -> list[Trial]:
        """Trials at these coordinates, decoded."""
        coordinates = [np.asarray(row, dtype=np.float64) for row in coordinates]
        embeddings = self.space.decode(np.stack(coordinates))
        texts = [None] * len(coordinates) if self.space.decode_texts is None else self.space.decode_texts(embeddings)
        return [
            Trial(len(self.trials) + number, row, stage, active_dim, origin, embedding, text)
            for number, (row, embedding, text) in enumerate(zip(coordinates, embeddings, texts, strict=True))
        ]

    def save(self) -> None:
        """Writes the state, whole or not at all.

        Raises:
            ValueError: If the optimiser has no folder.
            OSError: If it cannot be written.
        """
        if self.folder is None:
            raise ValueError("this optimiser has no folder to save to; give folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        arrays = {
            "coordinates": np.stack([trial.coordinates for trial in self.trials]),
            "embeddings": np.stack([trial.embedding for trial in self.trials]).astype(np.float32),
        }
        # The arrays first: those of a trial more than the state knows do no harm, one less would.
        with write_beside(self.folder / ARRAYS) as temporary:
            save_file(arrays, temporary)
        state = {"settings": self.settings(), **self._extra_state()}
        state["trials"] = [trial.record() for trial in self.trials]
        with write_beside(self.folder / STATE) as temporary:
            temporary.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")

    def _resume(self) -> None:
        """Reads the state of the folder, if there is one; to be called at the end of `__init__`."""
        if self.folder is None or not (self.folder / STATE).is_file():
            return
        try:
            state = json.loads((self.folder / STATE).read_text(encoding="utf-8"))
            theirs, records = dict(state["settings"]), list(state["trials"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{self.folder / STATE} is damaged and no run can go on from it; name another folder"
            ) from error
        mine = json.loads(json.dumps(self.settings()))
        if theirs != mine:
            differing = [name for name in mine if theirs.get(name) != mine[name]]
            raise ValueError(
                f"{self.folder} holds a run with another {', '.join(differing) or 'set of options'}; name another one"
            )
        try:
            arrays = load_file(self.folder / ARRAYS)
            self.trials = [
                Trial(coordinates=arrays["coordinates"][row], embedding=arrays["embeddings"][row], **record)
                for row, record in enumerate(records)
            ]
        except (SafetensorError, OSError, KeyError, IndexError, TypeError) as error:
            raise ValueError(
                f"{self.folder / ARRAYS} is missing or damaged, and no run can go on without it; name another folder"
            ) from error
        self._restore(state)

    def _extra_state(self) -> dict[str, Any]:
        """What a state has besides its trials, as JSON has it."""
        return {"duplicates": self.duplicates}

    def _restore(self, state: dict[str, Any]) -> None:
        """Takes back what [`_extra_state`] gave."""
        self.duplicates = state["duplicates"]


def _checked(value: Any, reason: str | None) -> tuple[float | None, str | None]:
    """A value as a float, or `None` and why."""
    if value is None:
        return None, reason or "no value"
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"the objective must give a number, but gave a {type(value).__name__}") from None
    if array.size != 1:
        raise ValueError(f"the objective must give one number, but gave values of shape {array.shape}")
    found = float(array.reshape(()))
    return (found, None) if math.isfinite(found) else (None, f"the objective gave {found}")
