"""Staged Bayesian optimisation in the latent of a funnel beside what it must beat, with the same trials and seeds.

    python benchmarks/lsbo.py --funnel outputs/funnel/ours_s0 --seeds 10 --out benchmarks/results/lsbo.json

Objectives, all to be maximised; what is hidden is drawn anew for each seed from texts that the funnel has not seen.
`hidden`: the cosine of the embedding to that of one hidden text. `multimodal`: the largest of a * exp((cosine - 1) /
0.15) over six hidden texts, with a from 1 down to 0.5. `text`: an embedding decodes to the nearest of `--corpus-texts`
texts that the funnel was trained on, and the text's score is its similarity to a hidden query by all-MiniLM-L6-v2.

`ours` is StagedLSBO as it is by default; `gp` and `linear` are Gaussian processes in the full latent (BoTorch's
default, a linear kernel), `turbo`, `cmaes`, `random`; `pool` tries texts of the corpus in a random order. Variants of
ours: `full` has no stages, `ours_points` models points of the latent where `ours` models what they decode to,
`frozen` is the schedule of the first staged optimiser without its faults. Defaults were decided with seeds below 10,
after all systems had been seen at seed 100 of `hidden`; the seeds here begin at 200. That a model of texts looks at
1,024 drawn points, not 256, was decided after half of the rows of `text` had been seen, but again with seeds below 10.
All but `cmaes`, `random` and `pool` start from the mean of the latents and 9 random points. `turbo` compares its
samples at `--turbo-candidates` points; BoTorch's tutorial takes 5,000, which takes several times as long.

Rows: `best_value` after all trials, one a seed; `simple_regret_at_N`, the distance of the best value after N trials to
the `ceiling`, a mean over the seeds with a 95% bootstrap interval: of `text` that is the best text of the corpus, else
the value at the latent of a hidden text, which a search can exceed. `seconds_per_suggestion`: median of those that a
model makes. `best_value_minus_<system>`: paired differences of `ours` (or a variant of it) over the seeds with their
bootstrap interval, the ratio of the means, and the p-value of a Wilcoxon signed-rank test (two-sided).

Without `--funnel` the latent is 128 principal components. Runs lie in `--work`; an interrupted call goes on.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import quick
from scipy.stats import wilcoxon

from hf_matryoshka.cli.options import load_yaml
from hf_matryoshka.data.convention_encoders import load_encoder
from hf_matryoshka.data.embedding_rows import split_rows
from hf_matryoshka.data.text_decoders.corpus_decoder import CorpusTextDecoder
from hf_matryoshka.evaluation.bootstrap import bootstrap_mean, paired_bootstrap
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.table import format_rows
from hf_matryoshka.lsbo.optimizer import Optimizer
from hf_matryoshka.lsbo.optimizers import make_optimizer
from hf_matryoshka.lsbo.search_space import SearchSpace
from hf_matryoshka.recipes.distillation_texts import gather_texts
from hf_matryoshka.recipes.funnel_recipe import FunnelRecipe
from hf_matryoshka.recipes.teacher_embeddings import teacher_embeddings
from hf_matryoshka.recipes.train_funnel import build_config, load_funnel
from hf_matryoshka.surgery.funnel_init import init_funnel
from hf_matryoshka.trainers.funnel_arguments import FunnelTrainingArguments


CONFIG = Path(__file__).parents[1] / "configs" / "funnel_minilm.yaml"
LEVELS = ("hidden", "multimodal", "text")
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "ours": ("staged", {}),
    "gp": ("gp", {}),
    "turbo": ("turbo", {}),
    "cmaes": ("cmaes", {}),
    "random": ("random", {}),
    "pool": ("pool", {}),
    "linear": ("linear", {}),
    "full": ("staged", {"mode": "full"}),
    "ours_points": ("staged", {"surrogate": "rbf"}),
    "frozen": ("staged", {"mode": "frozen", "surrogate": "rbf"}),
}
DEFAULT_SYSTEMS = list(SYSTEMS)[:7]
VARIANTS = ("ours", "full", "ours_points", "frozen")
FIRST_SEED = 200
WEIGHTS = np.linspace(1.0, 0.5, 6)
WIDTH = 0.15
MARKS = (25, 50, 100, 225)
# Networks of principal components do nothing; the smallest are the fastest.
SMALLEST = {"encoder_sizes": [8], "predictor_sizes": [8], "decoder_sizes": [8]}


@dataclass
class Problem:
    """An objective and the best value that is known to be reachable."""

    objective: Callable[[Any], float]
    ceiling: float
    space: SearchSpace
    pool: np.ndarray


class Setting:
    """Embeddings, funnel and corpus, made once."""

    def __init__(self, arguments: argparse.Namespace):
        recipe = read_recipe(arguments.funnel)
        if arguments.texts is not None:
            recipe = replace(recipe, max_texts_per_file=arguments.texts)
        encoder = load_encoder(recipe.base_model_path, recipe.embedding_convention)
        encoder.max_seq_length = recipe.max_length
        texts = gather_texts(recipe)
        vectors = unit(teacher_embeddings(encoder, texts))
        self.train, _, self.test = split_rows(vectors, (recipe.validation_fraction, recipe.test_fraction), recipe.seed)
        if arguments.funnel is None:
            self.funnel = init_funnel(self.train, build_config(replace(recipe, **SMALLEST), vectors.shape[1]))
        else:
            self.funnel = load_funnel(arguments.funnel)
        self.pool = self.train[: arguments.corpus_texts]
        self.corpus = [texts[row] for row in self.train.rows[: arguments.corpus_texts]]

    @cached_property
    def space(self) -> SearchSpace:
        return SearchSpace(self.funnel)

    @cached_property
    def text_space(self) -> SearchSpace:
        decoder = CorpusTextDecoder(self.corpus, self.pool, self.funnel.config.embedding_convention)
        return SearchSpace(self.funnel, decode_texts=decoder.decode, encode_texts=self.embed)

    @cached_property
    def rows(self) -> dict[str, int]:
        return {text: row for row, text in enumerate(self.corpus)}

    def embed(self, texts: list[str]) -> np.ndarray:
        """What the encoder gives for texts of the corpus; it has read them all before."""
        return self.pool[[self.rows[text] for text in texts]]

    def problem(self, level: str, seed: int) -> Problem:
        """The objective of a seed."""
        hidden = self.test[:][np.random.default_rng([seed, LEVELS.index(level)]).permutation(len(self.test))[:6]]
        if level == "text":
            scores = self.pool @ hidden[0]
            return Problem(
                lambda text: float(scores[self.rows[text]]), float(scores.max()), self.text_space, self.pool
            )

        def cosine(embeddings: np.ndarray) -> np.ndarray:
            return unit(embeddings) @ hidden[0]

        def bumps(embeddings: np.ndarray) -> np.ndarray:
            return (WEIGHTS * np.exp((unit(embeddings) @ hidden.T - 1) / WIDTH)).max(axis=1)

        scores = cosine if level == "hidden" else bumps
        reached = self.space.decode(self.space.encode(hidden))
        # Of `hidden` only the first text counts.
        ceiling = scores(reached if level == "multimodal" else reached[:1]).max()
        return Problem(lambda row: float(scores(row[None])[0]), float(ceiling), self.space, self.pool)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)


def read_recipe(funnel: str | None) -> FunnelRecipe:
    """What the funnel was trained on, so that its held-out texts are held out here."""
    if funnel is not None:
        report = json.loads((Path(funnel) / "training.json").read_text(encoding="utf-8"))
        return FunnelRecipe(**report["recipe"])
    own = FunnelRecipe.__dataclass_fields__
    return FunnelRecipe(
        **{key: value for key, value in load_yaml(CONFIG, FunnelRecipe, FunnelTrainingArguments).items() if key in own}
    )


def run_one(problem: Problem, system: str, seed: int, folder: Path, arguments: argparse.Namespace) -> Optimizer:
    name, options = SYSTEMS[system]
    if name == "turbo":
        options = options | {"candidates": arguments.turbo_candidates}
    if name == "pool":
        options = options | {"pool": problem.pool}
    run = make_optimizer(
        name, problem.space, maximize=True, trials=arguments.trials, seed=seed, folder=folder, **options
    )
    run.optimize(problem.objective, q=arguments.q, progress=False)
    return run


def comparisons(finals: dict[tuple[str, str], list[float]]) -> list[dict[str, Any]]:
    """Paired differences of each variant of ours to each other system."""
    rows = []
    for (system, level), own in finals.items():
        for (other, same), theirs in finals.items() if system in VARIANTS else ():
            if same != level or other == system or len(own) != len(theirs):
                continue
            value, low, high = paired_bootstrap(np.array(own), np.array(theirs))
            differing = any(a != b for a, b in zip(own, theirs, strict=True))
            rows.append(
                {"system": system, "level": level, "split": "test", "metric": f"best_value_minus_{other}"}
                | {"value": value, "low": low, "high": high, "seeds": len(own)}
                | {"ratio": float(np.mean(own) / np.mean(theirs))}
                | {"p_value": float(wilcoxon(own, theirs).pvalue) if differing else 1.0}
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--funnel", help="folder of a run of train funnel; principal components by default")
    parser.add_argument("--work", default="outputs/lsbo", type=Path)
    parser.add_argument("--levels", nargs="*", default=list(LEVELS), choices=LEVELS)
    parser.add_argument("--systems", nargs="*", default=DEFAULT_SYSTEMS, choices=list(SYSTEMS))
    parser.add_argument("--seeds", default=10, type=int)
    parser.add_argument("--trials", default=225, type=int)
    parser.add_argument("--q", default=1, type=int)
    parser.add_argument("--turbo-candidates", default=1000, type=int)
    parser.add_argument("--corpus-texts", default=20000, type=int)
    parser.add_argument("--texts", type=int, help="use only so many texts, for a quick look")
    parser.add_argument("--out", default="benchmarks/results/lsbo.json")
    arguments = quick.parse(
        parser,
        "lsbo",
        levels=["hidden"],
        systems=["ours", "gp", "turbo", "cmaes", "random"],
        seeds=2,
        trials=30,
        turbo_candidates=200,
        texts=3000,
    )

    setting = Setting(arguments)
    rows: list[dict[str, Any]] = []
    finals: dict[tuple[str, str], list[float]] = {}
    regrets: dict[tuple[str, str, int], list[float]] = {}
    seconds: dict[tuple[str, str], list[float]] = {}
    # All systems of a seed before the next seed: what an interrupted benchmark has is paired.
    for level in arguments.levels:
        for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
            problem = setting.problem(level, seed)
            for system in arguments.systems:
                start, folder = time.perf_counter(), arguments.work / level / f"{system}_s{seed}"
                run = run_one(problem, system, seed, folder, arguments)
                finals.setdefault((system, level), []).append(run.best.value)
                # Without the random trials of a start, which take no time.
                counted = [trial for trial in run.trials if trial.origin == "model"] or run.trials
                seconds.setdefault((system, level), []).extend(trial.seconds for trial in counted)
                row = {"system": system, "level": level, "split": "test", "metric": "best_value"}
                row |= {"value": run.best.value, "low": None, "high": None, "seeds": 1, "seed": seed}
                rows.append(row | {"trials": len(run.trials), "q": arguments.q, "ceiling": problem.ceiling})
                found = run.best_values()
                for mark in MARKS:
                    if mark <= len(found):
                        regret = problem.ceiling - found[mark - 1]
                        regrets.setdefault((system, level, mark), []).append(regret)
                took = time.perf_counter() - start
                print(f"{level} seed {seed} {system}: {run.best.value:.4f} ({took:.0f} s)", flush=True)
    for (system, level, mark), values in regrets.items():
        value, low, high = bootstrap_mean(np.array(values))
        row = {"system": system, "level": level, "split": "test", "metric": f"simple_regret_at_{mark}"}
        rows.append(row | {"value": value, "low": low, "high": high, "seeds": len(values), "per_seed": values})
    for (system, level), values in seconds.items():
        row = {"system": system, "level": level, "split": "test", "metric": "seconds_per_suggestion"}
        row |= {"value": float(np.median(values)), "low": None, "high": None, "seeds": len(finals[system, level])}
        rows.append(row | {"p90": float(np.quantile(values, 0.9))})
    compared = comparisons(finals)
    rows += compared

    header = ["system", *(f"{level} ({what})" for level in arguments.levels for what in ("best", "seconds"))]
    table = []
    for system in arguments.systems:
        cells = []
        for level in arguments.levels:
            own = finals.get((system, level))
            cells += ["-", "-"] if own is None else [f"{np.mean(own):.4f}", f"{np.median(seconds[system, level]):.2f}"]
        table.append([system, *cells])
    print(f"\nmean of {arguments.seeds} seeds after {arguments.trials} trials\n" + format_rows(header, table))
    for row in compared:
        versus = row["metric"].removeprefix("best_value_minus_")
        print(f"{row['level']}: {row['system']} / {versus} {row['ratio']:.3f} (p = {row['p_value']:.3g})")
    latent = "principal components" if arguments.funnel is None else Path(arguments.funnel).name
    print(write_report(arguments.out, "lsbo", rows, latent=latent, corpus_texts=len(setting.corpus)))


if __name__ == "__main__":
    main()
