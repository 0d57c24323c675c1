"""Our adaptor beside what sentence-transformers has for smaller embeddings, at equal bytes a vector.

    python benchmarks/adaptor_peers.py --out benchmarks/results/adaptor_peers.json

Every system starts from all-MiniLM-L6-v2 and sees the training part of a task only (benchmarks/peer_tasks.py): SciFact
(`scifact`, nDCG@10 of its 300 test queries; `scifact_unseen`, of the 104 of them whose documents no training query is
about), STS-B (`stsb`, Spearman), Banking77 (`banking77`, accuracy of a vote of the ten nearest training texts), and a
folder of text files (`folder`, nDCG@10 of sentences that were taken out of their passages; without labels).

`ours_unsupervised` and `ours_supervised` are the two stages of the default recipe, `ours_int8` and `ours_binary` the
last of them at 8 bits a number and at 1. `st_matryoshka` and `st_matryoshka_2d` are the whole encoder, fine-tuned with
MatryoshkaLoss and Matryoshka2dLoss around MultipleNegativesRankingLoss (CoSENTLoss on STS-B), in bfloat16;
`st_matryoshka_2d_layers3` is the first three layers of the latter. `st_csr` is a sparse autoencoder, which CSRLoss
trains on embeddings of the frozen encoder. `truncation`, `svd` (uncentred principal components of the documents),
`int8`, `binary` (queries stay floats) and `svd_int8` need no training.

A level is what a vector of a document may take: 4 bytes a number, 1 or 1/8 where it is quantised, and 6 for each
number of a sparse one that is not zero (a float and the number of its column). `minus_ours`: the paired difference to
`ours_supervised` (`ours_unsupervised` for `folder`) with its 95% bootstrap interval. `train_seconds`: training alone;
`embed_seconds`: what adaptor and CSR have encoded before. `encode_ms`: milliseconds a text, encoder and map, of 128
sentences in batches of 32; the median of rounds in which systems take turns.

Options of ours are the defaults of `AdaptorRecipe`, those of the others are in
benchmarks/sentence_transformers_peers.py, none chosen by the splits reported here. Runs lie in `--work`; an
interrupted call goes on, and several calls may take different tasks before one reports them all.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import peer_tasks
import quick
from peer_tasks import PeerTask
from sentence_transformers import SentenceTransformer
from sentence_transformers_peers import WRAPPERS, cut_layers, fine_tune, sparse, train_csr

from hf_matryoshka import AdaptorRecipe, AdaptorVectors, train_adaptor
from hf_matryoshka.data.base_models import DEFAULT_BASE_MODEL, load_base_model
from hf_matryoshka.data.files import write_beside
from hf_matryoshka.evaluation.baselines import SVD, Baseline, Binary, Int8, fit_baselines
from hf_matryoshka.evaluation.bootstrap import bootstrap_mean, paired_bootstrap
from hf_matryoshka.evaluation.levels import adaptor_transform
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.table import format_rows


DIMS = [8, 16, 32, 64, 128, 256, 384]
LEVELS = [4 * dim for dim in DIMS]
TASKS = ("scifact", "stsb", "banking77", "folder")
HALF = 3
# Vectors, bytes and "query" or "document" in; what is compared by cosine out, or None where there is no such level.
Shrink = Callable[[np.ndarray, int, str], np.ndarray | None]


def floats(transform: Callable[[np.ndarray, int, str], np.ndarray]) -> Shrink:
    return lambda vectors, size, kind: transform(vectors, size // 4, kind)


def quantised(transform: Callable[[np.ndarray, int, str], np.ndarray], per_byte: int, width: int) -> Shrink:
    """As many numbers as fit, none where a level below holds all of them."""

    def shrink(vectors: np.ndarray, size: int, kind: str) -> np.ndarray | None:
        smaller = max((level for level in LEVELS if level < size), default=0)
        return None if smaller * per_byte >= width else transform(vectors, min(width, size * per_byte), kind)

    return shrink


def rotated(coder: Baseline, per_byte: int, rotate: Callable[[np.ndarray], np.ndarray], corpus: np.ndarray) -> Shrink:
    coder.fit(rotate(corpus))
    return quantised(lambda vectors, dim, kind: coder.transform(rotate(vectors), dim, kind), per_byte, corpus.shape[1])


class TaskRun:
    """All systems on one task with one seed."""

    def __init__(self, task: PeerTask, folder: Path, seed: int):
        self.task, self.folder, self.seed = task, folder, seed
        self.base = load_base_model(DEFAULT_BASE_MODEL)
        self.timings: dict[str, dict[str, float]] = {}
        self.encoders: dict[str, Callable[[list[str]], Any]] = {}

    def systems(self, steps: int | None) -> dict[str, tuple[Shrink, np.ndarray, np.ndarray]]:
        """Each with the vectors that it shrinks, of queries and of documents."""
        vectors, seconds = self.training_vectors()
        sides = self.encode("base", self.base)
        recipe = AdaptorRecipe(matryoshka_dims=DIMS, seed=self.seed, **_few(steps))
        trained = train_adaptor(vectors, self.folder / "adaptor", recipe)
        found: dict[str, tuple[Shrink, np.ndarray, np.ndarray]] = {}
        spent = 0.0
        for stage, adaptor in trained.after_stage.items():
            name, transform = f"ours_{stage}", adaptor_transform(adaptor)
            spent += trained.report["stages"][stage]["seconds"]
            self.timings[name] = {"train_seconds": spent, "embed_seconds": seconds}
            found[name] = (floats(lambda part, dim, _, transform=transform: transform(part, f"d{dim}")), *sides)
            self.encoders[name] = lambda texts, transform=transform: transform(self.base.encode(texts), f"d{DIMS[0]}")
            last = partial(transform, level=f"d{DIMS[-1]}")
        found["ours_int8"] = (rotated(Int8(), 1, last, sides[1]), *sides)
        found["ours_binary"] = (rotated(Binary(), 8, last, sides[1]), *sides)
        coder, spent = train_csr(vectors, self.folder / "st_csr", self.seed, steps)
        self.timings["st_csr"] = {"train_seconds": spent, "embed_seconds": seconds}
        self.encoders["st_csr"] = lambda texts: sparse(coder, self.base.encode(texts), 10)
        found["st_csr"] = (lambda part, size, _: sparse(coder, part, size // 6), *sides)
        load = partial(load_base_model, DEFAULT_BASE_MODEL)
        for system in WRAPPERS:
            model, spent = fine_tune(system, self.task, load, DIMS, self.folder / system, self.seed, steps)
            self.timings[system] = {"train_seconds": spent}
            cut = floats(lambda part, dim, _: part[:, :dim])
            found[system] = (cut, *self.encode(system, model))
            if system == "st_matryoshka_2d":
                name = f"{system}_layers{HALF}"
                half = cut_layers(SentenceTransformer(str(self.folder / system / "model"), device="cpu"), HALF)
                found[name] = (cut, *self.encode(name, half))
        for name, baseline in fit_baselines(sides[1], ["truncation", "svd", "int8", "binary"]).items():
            shrink = floats(baseline.transform)
            if name in ("int8", "binary"):
                shrink = quantised(baseline.transform, 1 if name == "int8" else 8, sides[1].shape[1])
            found[name] = (shrink, *sides)
            if isinstance(baseline, SVD):
                turn = baseline.rotation
                found["svd_int8"] = (rotated(Int8(), 1, lambda part, turn=turn: part @ turn, sides[1]), *sides)
        return found

    def training_vectors(self) -> tuple[AdaptorVectors, float]:
        """What adaptors train on, and the seconds that encoding it took."""
        done = self.folder / "embed_seconds.json"
        start = time.perf_counter()
        vectors = AdaptorVectors.from_dataset(self.task.training, self.base, cache_dir=self.folder / "cache")
        if not done.is_file():
            with write_beside(done) as temporary:
                temporary.write_text(json.dumps(time.perf_counter() - start))
        return vectors, json.loads(done.read_text())

    def encode(self, name: str, model: SentenceTransformer) -> tuple[np.ndarray, np.ndarray]:
        self.encoders[name] = model.encode
        path = self.folder / f"{name}.npz"
        if not path.is_file():
            queries, documents = (
                model.encode(texts, batch_size=32, show_progress_bar=False)
                for texts in (self.task.queries, self.task.documents)
            )
            with write_beside(path) as temporary, temporary.open("wb") as file:
                np.savez(file, queries=queries, documents=documents)
        stored = np.load(path)
        return stored["queries"], stored["documents"]

    def values(self, steps: int | None) -> dict[tuple[str, str, int], np.ndarray]:
        """A value an item, by split, system and bytes."""
        found = {}
        for system, (shrink, queries, documents) in self.systems(steps).items():
            for size in LEVELS:
                parts = [shrink(part, size, kind) for part, kind in ((queries, "query"), (documents, "document"))]
                if parts[1] is None:
                    continue
                for split, values in self.task.score(*parts).items():
                    name = self.task.name + split.removeprefix("test")
                    found[name, system, size] = np.asarray(values, dtype=np.float64)
        return found

    def encode_ms(self, rounds: int = 5) -> dict[str, float]:
        texts = self.task.queries[:128]
        spent: dict[str, list[float]] = {name: [] for name in self.encoders}
        for _ in range(rounds):
            for name, encode in self.encoders.items():
                start = time.perf_counter()
                encode(texts)
                spent[name].append(1000 * (time.perf_counter() - start) / len(texts))
        return {name: statistics.median(values) for name, values in spent.items()}


def _few(steps: int | None) -> dict[str, int]:
    return {} if steps is None else dict.fromkeys(("unsupervised_steps", "supervised_steps"), steps)


def measure(task: PeerTask, folder: Path, seeds: int, steps: int | None) -> list[dict[str, Any]]:
    """The rows of a task."""
    rows: list[dict[str, Any]] = []
    runs = [TaskRun(task, folder / f"s{seed}", seed) for seed in range(seeds)]
    values = [run.values(steps) for run in runs]
    systems = {system for _, system, _ in values[0]}
    best = "ours_supervised" if "ours_supervised" in systems else "ours_unsupervised"
    for split, system, size in values[0]:
        key = {"system": system, "level": f"{size}B", "split": split, "seeds": seeds}
        per_item = np.mean([found[split, system, size] for found in values], axis=0)
        value, low, high = bootstrap_mean(per_item)
        rows.append(key | {"metric": task.metric, "value": value, "low": low, "high": high})
        if system != best:
            ours = np.mean([found[split, best, size] for found in values], axis=0)
            value, low, high = paired_bootstrap(per_item, ours)
            rows.append(key | {"metric": "minus_ours", "value": value, "low": low, "high": high})
    timings = {system: dict(found) for system, found in runs[0].timings.items()}
    for system, spent in runs[0].encode_ms().items():
        timings.setdefault(system, {})["encode_ms"] = spent
    for system, found in timings.items():
        for metric, value in found.items():
            row = {"system": system, "level": "all", "split": task.name, "metric": metric, "value": value}
            rows.append(row | {"low": None, "high": None, "seeds": 1})
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Prints a table for each split, and one of times."""
    scores = [row for row in rows if row["level"] != "all" and row["metric"] != "minus_ours"]
    for split in dict.fromkeys(row["split"] for row in scores):
        shown = {(row["system"], row["level"]): row["value"] for row in scores if row["split"] == split}
        table = [
            [system, *(f"{shown[system, f'{size}B']:.4f}" if (system, f"{size}B") in shown else "" for size in LEVELS)]
            for system in dict.fromkeys(system for system, _ in shown)
        ]
        print(f"\n{split}\n" + format_rows(["system", *(f"{size} B" for size in LEVELS)], table))
    times = [row for row in rows if row["level"] == "all"]
    body = [[row["system"], row["metric"], f"{row['value']:.3g}"] for row in times]
    print(format_rows(["system", "metric", "value"], body), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", type=Path)
    parser.add_argument("--folder", type=Path, help="of text files, a passage a line; those of WikiText by default")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--seeds", default=1, type=int)
    parser.add_argument("--work", default="outputs/adaptor_peers", type=Path)
    parser.add_argument("--limit", type=int, help="train on only so many texts or pairs, for a quick look")
    parser.add_argument("--steps", type=int, help="of each training, instead of its own")
    parser.add_argument("--out", default="benchmarks/results/adaptor_peers.json")
    arguments = quick.parse(parser, "adaptor_peers", tasks=["stsb"], limit=500, steps=50)

    rows: list[dict[str, Any]] = []
    for name in arguments.tasks:
        done = arguments.work / name / f"rows_{arguments.seeds}.json"
        if not done.is_file():
            source = arguments.data
            if name == "folder":
                source = arguments.folder or arguments.data / "wikitext2_valid_test"
            task = getattr(peer_tasks, name)(source, arguments.limit)
            found = measure(task, arguments.work / name, arguments.seeds, arguments.steps)
            with write_beside(done) as temporary:
                temporary.write_text(json.dumps(found))
        rows += json.loads(done.read_text())
        show([row for row in rows if row["split"].startswith(name)])
    print(write_report(arguments.out, "adaptor_peers", rows))


if __name__ == "__main__":
    main()
