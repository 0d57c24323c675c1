"""Staged latent-space Bayesian optimisation."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from botorch.acquisition import AcquisitionFunction
from botorch.models.model import Model
from botorch.utils.sampling import manual_seed
from scipy.stats import chi2

from .acquisition import AcquisitionOptions, Observations, best_of, expected_improvement, propose
from .candidates import draw_candidates
from .checks import check_numbers, check_switches, check_whole_numbers
from .embedding_model import EMBEDDINGS, fit_embedding_surrogate
from .optimizer import Optimizer
from .search_space import SearchSpace
from .stages import Stage, plan_stages
from .surrogates import SURROGATES, fit_surrogate
from .text_model import TEXTS, TextModel
from .trial import COMPLETE, FAILED, PENDING, Trial
from .trust_region import TrustRegion


# Random points that decode to a known text, one after the other, before one is taken all the same.
MAX_ECHOES = 8
# A proposal that decodes to a known text is looked for again, the last time among points whose texts are new.
LOOKS = 2
# Observations of a block that a model of it alone needs: the best trial before it, and some that were drawn.
LEAST_OF_BLOCK = 4
# Of the gradient search through the decoder.
DECODED_STEPS = 20


@dataclass
class _Problem:
    """What a proposal is computed from: the model, what it was fitted on in the coordinates from `low` to `width` of
    the cube, and the best point of all coordinates."""

    model: Model
    known: Observations
    best: np.ndarray
    low: int
    width: int

    def whole(self, space: SearchSpace, points: torch.Tensor) -> np.ndarray:
        """All coordinates, `(n, latent_dim)`, of points of the cube."""
        found = np.zeros((len(points), space.latent_dim))
        found[:, : self.low] = self.best[: self.low]
        found[:, self.low : self.width] = space.from_unit(points).numpy()
        return found


class StagedLSBO(Optimizer):
    """Bayesian optimisation of the first stages of a latent first.

    `mode="nested"` (the default): the prefix that is searched grows stage by stage; nothing is frozen and every
    observation is kept. `"frozen"`: a stage searches its own block only, with a model of its own trials, the blocks
    before it held at the best trial (the schedule of the first staged optimiser, without its faults). `"full"`: all
    coordinates from the start, with `surrogate="rbf"` the default of BoTorch. Where later coordinates are not searched
    yet they are 0, that is the mean of what follows given what is there.

    Each proposal maximises the logarithm of the expected improvement under a Gaussian process (Ament et al., arXiv
    2310.20708). A proposal that decodes to a known text is not evaluated: its value is known, the model learns it, and
    the best of some drawn points whose texts are new is taken instead.

    Args:
        space ([`SearchSpace`]), maximize (`bool`), trials (`int`), seed (`int`), folder (`str` or `Path`): As those of
            [`Optimizer`].
        mode (`str`, *optional*, defaults to `"nested"`): `"nested"`, `"frozen"` or `"full"`.
        budgets (`list[int]`, *optional*): Trials of each stage; by default in proportion to 50, 40, 35, 30, 25, 20,
            15, 10.
        initial (`int`, *optional*, defaults to 10): Trials before the first model: the mean, then random ones of the
            first stage.
        surrogate (`str`, *optional*): A model of points, `"rbf"`, `"matern"`, `"saas"` or `"linear"` (see
            [`fit_surrogate`]); `"embeddings"`, of what they decode to (see [`fit_embedding_surrogate`]); `"texts"`, of
            what the decoded texts are encoded to (see [`TextModel`]), which takes none of `trust_region`,
            `typical_set`, `prior_weight` and `noisy`. By default `"texts"` where the space encodes texts and none of
            these is given, else `"embeddings"`.
        stage_patience (`int`, *optional*): A stage also ends after so many trials without a better value; what is left
            of its budget goes to the last stage.
        reopen (`bool`, *optional*, defaults to `False`): Of `"frozen"`: a trial changes whichever block so far
            promises the largest improvement under one model of all trials, instead of the stage's own.
        trust_region (`bool`, *optional*, defaults to `False`): Look only in a box around the best trial, which grows
            and shrinks with success (TuRBO, arXiv 1910.01739).
        typical_set (`float`, *optional*): Keep proposals inside the ball that holds this share of the density of the
            latents, such as 0.99.
        prior_weight (`float`, *optional*, defaults to 0.0): How much that density guides the search, less with every
            trial (Hvarfner et al., arXiv 2204.11051).
        noisy (`bool`, *optional*, defaults to `False`): Whether values have noise.
        corpus (`tuple[np.ndarray, np.ndarray]`, *optional*): Embeddings `(n, embedding_dim)` and values `(n,)` that
            are known before.
        acquisition ([`AcquisitionOptions`], *optional*): How hard the acquisition is maximised; by default with 20
            steps where each goes through the decoder.

    Raises:
        ValueError: If an argument has no valid value, or as [`Optimizer`].
    """

    name = "staged LSBO"

    def __init__(
        self,
        space: SearchSpace,
        *,
        maximize: bool,
        trials: int = 225,
        seed: int = 0,
        folder: str | Path | None = None,
        mode: str = "nested",
        budgets: list[int] | None = None,
        initial: int = 10,
        surrogate: str | None = None,
        stage_patience: int | None = None,
        reopen: bool = False,
        trust_region: bool = False,
        typical_set: float | None = None,
        prior_weight: float = 0.0,
        noisy: bool = False,
        corpus: tuple[np.ndarray, np.ndarray] | None = None,
        acquisition: AcquisitionOptions | None = None,
    ):
        super().__init__(space, maximize=maximize, trials=trials, seed=seed, folder=folder)
        check_switches(reopen=reopen, trust_region=trust_region, noisy=noisy)
        check_whole_numbers(initial=initial, stage_patience=stage_patience)
        check_numbers(typical_set=typical_set, prior_weight=prior_weight)
        self.stages = plan_stages(space.dims, mode, trials, budgets)
        given = {"trust_region": trust_region, "typical_set": typical_set, "prior_weight": prior_weight}
        given = [name for name, value in (given | {"noisy": noisy}).items() if value]
        if surrogate is None:
            surrogate = EMBEDDINGS if space.encode_texts is None or given else TEXTS
        if surrogate == TEXTS and given:
            raise ValueError(f"a model of texts has no {given[0]}; leave it out or choose another surrogate")
        models = (*SURROGATES, EMBEDDINGS, TEXTS)
        if surrogate not in models:
            raise ValueError(f"surrogate {surrogate!r} does not exist; choose one of {', '.join(models)}")
        self._texts = TextModel(space) if surrogate == TEXTS else None
        if initial is None or initial < 2:
            raise ValueError(f"initial must be at least 2, or there is nothing to model, but is {initial}")
        if stage_patience is not None and stage_patience < 1:
            raise ValueError(f"stage_patience must be at least 1, but is {stage_patience}")
        if typical_set is not None and not 0 < typical_set < 1:
            raise ValueError(f"typical_set must be between 0 and 1, but is {typical_set}")
        if prior_weight is None or prior_weight < 0:
            raise ValueError(f"prior_weight must not be negative, but is {prior_weight}")
        if reopen and mode != "frozen":
            raise ValueError(f"reopen is about blocks that are frozen, but mode is {mode!r}")
        self.mode, self.initial, self.surrogate = mode, initial, surrogate
        self.stage_patience, self.reopen = stage_patience, reopen
        self.typical_set, self.prior_weight, self.noisy = typical_set, prior_weight, noisy
        steps = DECODED_STEPS if surrogate == EMBEDDINGS else AcquisitionOptions.maxiter
        self.acquisition = acquisition or AcquisitionOptions(maxiter=steps)
        self.region = TrustRegion() if trust_region else None
        self._stage = 0
        # Points whose text is that of a trial, and which trial.
        self._echoes: list[tuple[np.ndarray, int]] = []
        self._corpus = self._read_corpus(corpus)
        self._resume()

    def settings(self) -> dict[str, Any]:
        names = ("mode", "initial", "surrogate", "stage_patience", "reopen", "typical_set", "prior_weight", "noisy")
        own = {name: getattr(self, name) for name in names}
        own["budgets"] = [stage.budget for stage in self.stages]
        own["trust_region"] = self.region is not None
        own["acquisition"] = vars(self.acquisition)
        own["corpus"] = [len(self._corpus[1]), float(self._corpus[1].sum())]
        return super().settings() | own

    @property
    def stage(self) -> Stage:
        """The stage that proposes next."""
        return self.stages[self._stage]

    def _read_corpus(self, corpus: tuple[np.ndarray, np.ndarray] | None) -> tuple[np.ndarray, np.ndarray]:
        if corpus is None:
            return np.empty((0, self.space.latent_dim)), np.empty(0)
        width = self.space.funnel.config.embedding_dim
        try:
            embeddings, values = (np.asarray(part, dtype=np.float64) for part in corpus)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"corpus must be two arrays: embeddings (n, {width}) and their values (n,)") from None
        fits = embeddings.ndim == 2 and embeddings.shape[1] == width and values.shape == (len(embeddings),)
        if not fits or not np.isfinite(embeddings).all() or not np.isfinite(values).all():
            raise ValueError(
                f"corpus must be finite embeddings (n, {width}) and as many finite values, got shapes "
                f"{embeddings.shape} and {values.shape}"
            )
        return self.space.encode(embeddings), values

    def _propose(self, q: int) -> list[Trial]:
        self._advance()
        stage = self.stage
        last = stage.number == len(self.stages) - 1
        if not last:
            q = min(q, stage.budget - len(self._of_stage(stage)))
        rng = np.random.default_rng([self.seed, len(self.trials)])
        first = min(self.initial, self.stages[0].budget)
        if len(self.trials) >= first and len(self._known(stage)[1]) >= (LEAST_OF_BLOCK if stage.start else 2):
            return self._by_model(stage, q, rng)
        if len(self.trials) < first:
            q = min(q, first - len(self.trials))
        found: list[Trial] = []
        if not self.trials:
            found = self._trials([np.zeros(self.space.latent_dim)], stage.number, stage.end, "start")
        return self._with_random(stage, q, rng, found)

    def _with_random(self, stage: Stage, q: int, rng: np.random.Generator, found: list[Trial]) -> list[Trial]:
        """`found` and random trials, `q` in all; their texts are new unless the draws find none that is."""
        while len(found) < q:
            for _ in range(MAX_ECHOES):
                (trial,) = self._trials([self._random(stage, rng)], stage.number, stage.end, "random")
                if self._echo_of(trial, found) is None:
                    break
                self.duplicates += 1
            trial.id = len(self.trials) + len(found)
            found.append(trial)
        return found

    def _of_stage(self, stage: Stage) -> list[Trial]:
        return [trial for trial in self.trials if trial.stage == stage.number]

    def _advance(self) -> None:
        """Goes to the next stage where this one is over."""
        while self._stage < len(self.stages) - 1:
            own = self._of_stage(self.stage)
            done = len(own) >= self.stage.budget
            if self.stage_patience is not None and not done:
                told = [trial for trial in own if trial.status != PENDING]
                before = [trial for trial in self.trials if trial not in told[-self.stage_patience :]]
                done = len(told) > self.stage_patience and not self._improved(before, told[-self.stage_patience :])
            if not done:
                return
            self._stage += 1
            if self.region is not None:
                self.region = TrustRegion()

    def _improved(self, before: list[Trial], after: list[Trial]) -> bool:
        sign = 1 if self.maximize else -1
        best = max((sign * trial.value for trial in before if trial.status == COMPLETE), default=-math.inf)
        return any(trial.status == COMPLETE and sign * trial.value > best for trial in after)

    def _random(self, stage: Stage, rng: np.random.Generator) -> np.ndarray:
        """A draw from the density of the latents in the block of a stage."""
        point = np.zeros(self.space.latent_dim)
        if self.best is not None:
            point[: stage.start] = self.best.coordinates[: stage.start]
        drawn = rng.standard_normal(stage.end - stage.start).clip(-self.space.bound, self.space.bound)
        point[stage.start : stage.end] = drawn
        return point

    def _by_model(self, stage: Stage, q: int, rng: np.random.Generator) -> list[Trial]:
        found: list[Trial] = []
        model: Model | None = None
        for look in range(LOOKS):
            seed, left = int(rng.integers(2**31)), q - len(found)
            with manual_seed(seed):
                if self._texts is not None:
                    rows = self._best_texts(stage, left, seed, found)
                else:
                    # An echo is one value more; the hyper-parameters can wait for the next trial.
                    problem = self._problem(stage, found, model)
                    model = problem.model
                    best = self._best_drawn if look == LOOKS - 1 and self.space.decode_texts else self._maximise
                    rows = best(stage, problem, left, seed, found)
            for trial in self._trials(rows, stage.number, stage.end, "model") if len(rows) else ():
                echo = self._echo_of(trial, found)
                if echo is None:
                    trial.id = len(self.trials) + len(found)
                    found.append(trial)
                else:
                    self.duplicates += 1
                    self._echoes.append((trial.coordinates, echo.id))
            if len(found) == q:
                return found
        return self._with_random(stage, q, rng, found)

    def _echo_of(self, trial: Trial, found: list[Trial]) -> Trial | None:
        """The trial that has this text already."""
        if trial.text is None:
            return None
        return next((other for other in (*self.trials, *found) if other.text == trial.text), None)

    def _problem(self, stage: Stage, found: list[Trial], like: Model | None) -> _Problem:
        """What a proposal of a stage is computed from; hyper-parameters are those of `like`, if there is one."""
        joint = self._joint
        rows, values = self._known(stage)
        best = rows[int(values.argmax())]
        # As many coordinates as any observation sets: the others are 0 everywhere.
        width = stage.end
        if joint and rows[:, width:].any():
            width = self.space.latent_dim
        low = 0 if joint else stage.start
        cube = self.space.to_unit(torch.from_numpy(rows))[:, low:width]
        variances = self._variances() if joint and not len(self._corpus[1]) and not self._echoes else None
        targets = torch.from_numpy(values)
        if self.surrogate == EMBEDDINGS:
            model = self._fit_embeddings(rows, targets, torch.from_numpy(best[:low]), variances, like)
        else:
            model = fit_surrogate(cube, targets, self.surrogate, variances, like)
        open_rows = [trial.coordinates for trial in (*self.trials, *found) if trial.status == PENDING]
        pending = self.space.to_unit(torch.from_numpy(np.array(open_rows)))[:, low:width] if open_rows else None
        known = Observations(cube, targets, pending, self.noisy)
        return _Problem(model, known, best, low, width)

    def _fit_embeddings(
        self,
        rows: np.ndarray,
        values: torch.Tensor,
        before: torch.Tensor,
        variances: torch.Tensor | None = None,
        like: Model | None = None,
    ) -> Model:
        """A model of what `rows` decode to; points that it is asked about follow the coordinates `before`, and are
        followed by zeros."""

        def decode(points: torch.Tensor) -> torch.Tensor:
            searched = self.space.from_unit(points)
            behind = self.space.latent_dim - len(before) - searched.shape[-1]
            parts = [
                before.expand(*searched.shape[:-1], -1),
                searched,
                searched.new_zeros(*searched.shape[:-1], behind),
            ]
            return self.space.embed(torch.cat(parts, dim=-1))

        return fit_embedding_surrogate(self._embed(rows), values, decode, variances, like)

    @torch.no_grad()
    def _embed(self, rows: np.ndarray) -> torch.Tensor:
        return self.space.embed(torch.from_numpy(rows))

    def _improvement(self, problem: _Problem, seed: int) -> AcquisitionFunction:
        return expected_improvement(
            problem.model,
            problem.known,
            seed,
            self.acquisition,
            feasibility=self._feasibility(problem.low, problem.width),
            log_prior=self._log_prior if self.prior_weight else None,
            prior_exponent=self.prior_weight / max(1, len(self.completed)),
        )

    def _maximise(self, stage: Stage, problem: _Problem, q: int, seed: int, found: list[Trial]) -> np.ndarray:
        """Coordinates, `(q, latent_dim)`, of the largest expected improvement."""
        low, width, best = problem.low, problem.width, problem.best
        blocks = [(stage.start, stage.end)]
        if self.reopen:
            blocks = [(earlier.start, earlier.end) for earlier in self.stages[: stage.number + 1]]
        centre, bounds = self._box(problem)
        project = self._project(stage.end, best[:low]) if self.typical_set else None
        searched = []
        for start, end in blocks:
            # What is not searched stays: earlier blocks as in the best trial, later ones at 0.
            held, box = {}, bounds.clone()
            for place in range(low, width):
                if not start <= place < end:
                    held[place - low] = float(centre[place - low]) if place < start or self.reopen else 0.5
                    # Where it is held may lie outside of the box around the best point.
                    box[:, place - low] = bounds.new_tensor([0.0, 1.0])
            points, gain = propose(self._improvement(problem, seed), box, held, q, seed, self.acquisition, project)
            searched.append((gain, points))
        return problem.whole(self.space, max(searched, key=lambda pair: pair[0])[1])

    def _box(self, problem: _Problem) -> tuple[torch.Tensor, torch.Tensor]:
        """The best point in the cube, `(dim,)`, and where to look for a better one, `(2, dim)`."""
        centre = self.space.to_unit(torch.from_numpy(problem.best))[problem.low : problem.width]
        if self.region is not None:
            return centre, self.region.bounds(centre, problem.model)
        return centre, torch.stack([torch.zeros_like(centre), torch.ones_like(centre)])

    def _best_drawn(self, stage: Stage, problem: _Problem, q: int, seed: int, found: list[Trial]) -> np.ndarray:
        """Coordinates, at most `(q, latent_dim)`, of the largest expected improvement among points that are drawn and
        whose texts are new; none if no text is."""
        low, width = problem.low, problem.width
        rows = draw_candidates(self.space, problem.best, stage.start, stage.end, seed)
        points = self.space.to_unit(torch.from_numpy(rows))[:, low:width]
        searched = slice(stage.start - low, stage.end - low)
        least, most = self._box(problem)[1][:, searched]
        points[:, searched] = points[:, searched].clamp(least, most)
        if self.typical_set:
            points = self._project(stage.end, problem.best[:low])(points)
        rows = problem.whole(self.space, points)
        known = {trial.text for trial in (*self.trials, *found)}
        texts = self.space.decode_texts(self.space.decode(rows))
        new = list({text: place for place, text in enumerate(texts) if text not in known}.values())
        if not new:
            return rows[:0]
        return rows[[new[number] for number in best_of(self._improvement(problem, seed), points[new], q)]]

    def _best_texts(self, stage: Stage, q: int, seed: int, found: list[Trial]) -> np.ndarray:
        """Coordinates, `(q, latent_dim)`, of the texts of the largest expected improvement among some that are
        drawn."""
        trials = self.completed
        values = (1 if self.maximize else -1) * np.array([trial.value for trial in trials])
        features = self._texts.features([trial.text for trial in trials])
        if len(self._corpus[1]):
            sign = 1 if self.maximize else -1
            features, values = np.concatenate([features, self._corpus[0]]), np.append(values, sign * self._corpus[1])
        best = self.best.coordinates if self.best is not None else np.zeros(self.space.latent_dim)
        known = [trial.text for trial in (*self.trials, *found)]
        pending = [trial.text for trial in (*self.trials, *found) if trial.status == PENDING]
        return self._texts.best(features, values, best, stage.start, stage.end, known, pending, q, seed)

    def model(self) -> Model:
        trials = self.completed
        values = torch.tensor([trial.value for trial in trials], dtype=torch.float64)
        if self._texts is not None:
            features = self._texts.features([trial.text for trial in trials])
            return fit_surrogate(self.space.to_unit(torch.from_numpy(features)), values)
        rows = np.stack([trial.coordinates for trial in trials])
        if self.surrogate == EMBEDDINGS:
            return fit_embedding_surrogate(self._embed(rows), values)
        return fit_surrogate(self._set_coordinates(rows), values, self.surrogate)

    @property
    def _joint(self) -> bool:
        """Whether one model has all trials, instead of those of a stage."""
        return self.mode != "frozen" or self.reopen

    def _known(self, stage: Stage) -> tuple[np.ndarray, np.ndarray]:
        """What the model of a stage is fitted on."""
        return self._observations(None if self._joint else stage)

    def _observations(self, stage: Stage | None) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates and values, larger is better; of one stage and the best trial before it, where one is given."""
        trials = self.completed
        if stage is not None:
            own = [trial for trial in trials if trial.stage == stage.number]
            earlier = [trial for trial in trials if trial.stage < stage.number]
            sign = 1 if self.maximize else -1
            trials = own + sorted(earlier, key=lambda trial: -sign * trial.value)[: 1 if earlier else 0]
        ids = {trial.id: trial.value for trial in trials}
        echoes = [(row, ids[number]) for row, number in self._echoes if number in ids]
        rows = [trial.coordinates for trial in trials] + [row for row, _ in echoes]
        values = [trial.value for trial in trials] + [value for _, value in echoes]
        if stage is None:
            rows, values = [*rows, *self._corpus[0]], [*values, *self._corpus[1]]
        return np.array(rows), (1 if self.maximize else -1) * np.array(values, dtype=np.float64)

    def _variances(self) -> torch.Tensor | None:
        found = [trial.variance for trial in self.completed]
        if None in found or not found:
            return None
        # A variance of 0 would make the covariance singular where points are close.
        return torch.tensor(found, dtype=torch.float64).clamp_min(1e-8)

    def _feasibility(self, low: int, width: int):
        """A model of which points have a value; `None` as long as all have."""
        if not any(trial.status == FAILED for trial in self.trials):
            return None
        told = [trial for trial in self.trials if trial.status != PENDING]
        rows = torch.from_numpy(np.array([trial.coordinates for trial in told]))
        labels = torch.tensor([float(trial.status == COMPLETE) for trial in told], dtype=torch.float64)
        if labels.min() == labels.max():
            return None
        return fit_surrogate(self.space.to_unit(rows)[:, low:width], labels)

    def _log_prior(self, points: torch.Tensor) -> torch.Tensor:
        """Of points of the cube under the density of the latents, up to a constant."""
        return -0.5 * (self.space.from_unit(points) ** 2).sum(dim=-1)

    def _project(self, end: int, before: np.ndarray):
        """Takes points of the cube into the ball that holds `typical_set` of the density of the first `end`."""
        radius = math.sqrt(chi2.ppf(self.typical_set, end))
        held = float((before**2).sum())

        def project(points: torch.Tensor) -> torch.Tensor:
            rows = self.space.from_unit(points)
            length = rows.norm(dim=-1, keepdim=True).clamp_min(1e-12)
            most = math.sqrt(max(radius**2 - held, 1e-12))
            return self.space.to_unit(rows * (most / length).clamp_max(1.0))

        return project

    def tell(
        self,
        trial: Trial | int,
        value: float | None = None,
        variance: float | None = None,
        reason: str | None = None,
    ) -> None:
        before = None if self.best is None else self.best.value
        folder, self.folder = self.folder, None
        try:
            super().tell(trial, value, variance, reason)
        finally:
            self.folder = folder
        own = self.trials[trial.id if isinstance(trial, Trial) else trial]
        if self.region is not None and own.origin == "model":
            sign = 1 if self.maximize else -1
            better = own.status == COMPLETE and (before is None or sign * own.value > sign * before)
            self.region.update(better, self.stage.end - self.stage.start)
        if self.folder is not None:
            self.save()

    def _extra_state(self) -> dict[str, Any]:
        echoes = [{"coordinates": row.tolist(), "trial": number} for row, number in self._echoes]
        region = None if self.region is None else vars(self.region)
        return super()._extra_state() | {"stage": self._stage, "echoes": echoes, "region": region}

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        self._stage = state["stage"]
        self._echoes = [(np.array(echo["coordinates"]), echo["trial"]) for echo in state["echoes"]]
        if state["region"] is not None:
            self.region = TrustRegion(**state["region"])
