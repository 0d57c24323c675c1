"""Every long job of the command line, killed by SIGKILL at random moments and run again: does it end the same?

    python benchmarks/kill_and_resume.py --out benchmarks/results/kill_and_resume.json

A job (`--jobs` names some of them) is a command on small real data: documentation of the installed Python packages,
all-MiniLM-L6-v2; trainings take more than one epoch. It is run once undisturbed, then `--kills` times in a folder of
its own: killed at a moment that is drawn uniformly from the time it takes, and run again to its end. Commands run in
forks of this process, which has imported everything, so that the moments fall into the work and not into the imports.
Rows, one job a system:

- `kills`: runs that were killed; those that ended before do not count, and are drawn anew;
- `identical`: share of them that ended with the same bytes in every file of the result, the same names and nothing
  more; of JSON documents without times, dates and where a run went on;
- `half_files`: files that could not be read under their final name after a kill;
- `leftovers`: hidden files that were still there in the end;
- `seconds`: of the undisturbed run.
"""

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from hf_matryoshka.hub import LocalHub  # noqa: E402


# Hugging Face libraries ask where the Hub is when they are imported.
HUB = LocalHub().start()
os.environ.update(HUB.environment())

import numpy as np  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import yaml  # noqa: E402
from safetensors import safe_open  # noqa: E402

from hf_matryoshka.cli import main as command  # noqa: E402
from hf_matryoshka.data.arrow import read_arrow  # noqa: E402
from hf_matryoshka.data.beir import save_beir  # noqa: E402
from hf_matryoshka.data.docstrings import documentation_corpus  # noqa: E402
from hf_matryoshka.data.retrieval import RetrievalDataset  # noqa: E402
from hf_matryoshka.evaluation.report import write_report  # noqa: E402
from hf_matryoshka.evaluation.table import format_rows  # noqa: E402


MODULES = ("ablate", "evaluate", "optimize", "quickstart", "train_adaptor", "train_delta", "train_delta_embedding")
MODULES += ("train_funnel", "train_gpt", "train_mamba")
OTHERS = ("mteb", "botorch", "matplotlib.pyplot", "hf_matryoshka.hub.push", "hf_matryoshka.lsbo.report")
VOLATILE = {"seconds", "latency_ms", "date", "command", "resumed_from_step", "tokens_per_second", "training_loss"}
VOLATILE |= {"_fingerprint"}
TRAINED = ("model", "training.json", "curve.json", "overlap_curve.json")
BASE = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass
class Job:
    """A command.

    Args:
        arguments (`list[str]`): Its arguments; `{data}` is the folder of what is made beforehand.
        results (`tuple[str, ...]`): What is compared, relative to the folder that it runs in; if empty, the Hub.
        config (`dict`, *optional*): Its YAML file, if it takes one.
    """

    arguments: list[str]
    results: tuple[str, ...] = ("out",)
    config: dict[str, Any] = field(default_factory=dict)


TRAINING = {"use_cpu": True, "per_device_train_batch_size": 8, "save_steps": 4, "logging_steps": 4, "max_steps": 16}
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "max_length": 64}
# Few, so that 16 steps take more than one epoch.
TEXTS = {"texts": ["{data}/few.jsonl"], "validation_fraction": 0.1}
ADAPTOR = {"unsupervised_steps": 16, "random_candidates": 64, "intermediate_size": 64, "evaluations": 4, "patience": 1}
FUNNEL = {"matryoshka_dims": [8, 16], "encoder_sizes": [64], "predictor_sizes": [16], "decoder_sizes": [64]}
EMBEDDING = {"objective": "embedding", "base_model_path": BASE, "budgets": [[0.5, 12, 3], [1.0, 12, 6]]}
EMBEDDING |= {"matryoshka_dims": [64, 384], "max_length": 32, "level_sampling": "random", "levels_per_step": 1}
MAMBA = {"teacher_model_path": BASE, "hidden_size": 64, "num_hidden_layers": 1, "head_dim": 16, "state_size": 16}
MAMBA |= {"widths": [0.5, 1.0], "matryoshka_dims": [64, 384], "max_length": 32}
FRACTAL = {"texts": [f"{{data}}/stream{number}.jsonl" for number in range(4)], "validation_fraction": 0.1}
FRACTAL |= {"children": 2, "depth": 3, "vocab_size": 300, "num_attention_heads": 4}
OPTIMIZE = ["--objective", "scores:first", "--maximize", "--trials", "14", "--initial", "10", "--output", "out"]


def train(system: str, *arguments: str, **config: Any) -> Job:
    results = tuple(f"out/{name}" for name in TRAINED)
    return Job(["train", system, "out", "--config", "config.yaml", *arguments], results, TRAINING | config)


JOBS = {
    "embed": Job(["embed", "{data}/texts.jsonl", "out.parquet"], ("out.parquet",)),
    "pack": Job(["pack", "{data}/texts.jsonl", "out", "--max-length", "64", "--buffer-size", "60"]),
    "train_adaptor": train("adaptor", "--beir", "{data}/beir", matryoshka_dims=[16, 64, 384], **ADAPTOR),
    "train_funnel": train("funnel", "--vectors", "{data}/vectors.npy", **FUNNEL | {"max_steps": 60}),
    "train_delta": train("delta", **TEXTS, **SMALL, vocab_size=400),
    "train_delta_embedding": train("delta", **TEXTS, **EMBEDDING),
    "train_mamba": train("mamba", **TEXTS, **MAMBA),
    "train_gpt": train("gpt", **TEXTS, **SMALL, rows="windows", tokenizer="characters", doll_sizes=[32, 64]),
    "train_fractal": train("fractal", **SMALL | FRACTAL),
    "evaluate": Job(["evaluate", "{data}/adaptor", "--beir", "{data}/beir", "--output", "out"]),
    "optimize": Job(["optimize", "--funnel", "{data}/funnel", *OPTIMIZE]),
    "export": Job(["export", "{data}/adaptor", "out", "--base-model", BASE]),
    "push": Job(["push", "{data}/family", "me/killed"], ()),
}


def prepare(data: Path) -> None:
    """The texts, vectors and models that the jobs take."""
    corpus = documentation_corpus(400)
    texts = [" ".join(text.split())[:160] for text in corpus.documents()]
    _write_texts(data / "texts.jsonl", texts)
    _write_texts(data / "few.jsonl", texts[:40])
    for number in range(4):
        _write_texts(data / f"stream{number}.jsonl", texts[number:80:4])
    keep = set(corpus.corpus_ids[:60])
    qrels = {
        split: {query: found for query, found in queries.items() if keep >= set(found)}
        for split, queries in corpus.qrels.items()
    }
    asked = {query for queries in qrels.values() for query in queries}
    queries = [pair for pair in zip(corpus.query_ids, corpus.queries, strict=True) if pair[0] in asked]
    small = RetrievalDataset(
        name="docstrings",
        corpus_ids=corpus.corpus_ids[:60],
        titles=corpus.titles[:60],
        texts=texts[:60],
        query_ids=[query for query, _ in queries],
        queries=[text for _, text in queries],
        qrels=qrels,
    )
    save_beir(small, data / "beir")
    for folder in ("adaptor", "funnel"):
        (data / folder).mkdir()
    run(["embed", str(data / "texts.jsonl"), str(data / "vectors.npy")], data)
    (data / "config.yaml").write_text(yaml.safe_dump(TRAINING | ADAPTOR | {"matryoshka_dims": [16, 64, 384]}))
    vectors = ["--config", str(data / "config.yaml")]
    beir = ["--beir", str(data / "beir")]
    run(["train", "adaptor", str(data / "adaptor"), *beir, *vectors], data)
    (data / "config.yaml").write_text(yaml.safe_dump(TRAINING | FUNNEL))
    run(["train", "funnel", str(data / "funnel"), "--vectors", str(data / "vectors.npy"), *vectors], data)
    run(["export", str(data / "adaptor"), str(data / "family"), "--base-model", BASE], data)


def _write_texts(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def start(arguments: list[str], folder: Path) -> int:
    """Begins a command in a fork of this process; its number."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(folder)
        os.environ["HF_MATRYOSHKA_CACHE"] = str(folder / "cache")
        sys.argv = ["hf-matryoshka", *arguments]
        command()
        status = 0
    except SystemExit as stop:
        status = stop.code or 0
    finally:
        os._exit(status)


def run(arguments: list[str], folder: Path) -> float:
    """Runs a command to its end; the seconds that it took."""
    began = time.perf_counter()
    _, status = os.waitpid(start(arguments, folder), 0)
    if status:
        raise RuntimeError(
            f"{' '.join(arguments)} ended with status {status}: {(folder / 'log.txt').read_text()[-3000:]}"
        )
    return time.perf_counter() - began


def run_and_kill(arguments: list[str], folder: Path, seconds: float) -> bool:
    """Kills a command after so long; whether it was still at work."""
    child = start(arguments, folder)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def measure(job: Job, data: Path, kills: int, rng: random.Random) -> dict[str, float]:
    """The values of a job's rows."""
    arguments = [part.replace("{data}", str(data)) for part in job.arguments]
    folder = data.parent / "job"

    def begin() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        config = yaml.safe_dump(job.config).replace("{data}", str(data))
        (folder / "config.yaml").write_text(config)
        (folder / "scores.py").write_text("def first(embedding):\n    return float(embedding[0])\n")
        HUB.reset()

    begin()
    seconds = run(arguments, folder)
    expected = result(job, folder)
    found = {"kills": 0, "identical": 0, "half_files": 0, "leftovers": 0}
    while found["kills"] < kills:
        begin()
        if not run_and_kill(arguments, folder, rng.uniform(0, seconds)):
            continue
        found["kills"] += 1
        half = half_files(folder)
        # What is finished already is refused by name.
        if job.arguments[0] != "pack" or not (folder / "out").exists():
            run(arguments, folder)
        same = result(job, folder) == expected
        found["identical"] += same
        found["half_files"] += len(half)
        found["leftovers"] += len(list(folder.rglob(".*")))
        if half or not same:
            print(f"{' '.join(arguments[:2])}: {half or differences(result(job, folder), expected)}", file=sys.stderr)
    return found | {"identical": found["identical"] / kills, "seconds": round(seconds, 2)}


def result(job: Job, folder: Path) -> dict[str, Any]:
    """The files of a result by name, of JSON documents without what is another in every run."""
    if not job.results:
        return {f"{name}/{path}": data for name in HUB.repos() for path, data in HUB.files(name).items()}
    paths = [path for name in job.results for path in [folder / name, *(folder / name).rglob("*")] if path.is_file()]
    return {
        str(path.relative_to(folder)): steady(json.loads(path.read_bytes()))
        if path.suffix == ".json"
        else path.read_bytes()
        for path in paths
    }


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    return [name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]


def steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: steady(item) for name, item in value.items() if name not in VOLATILE}
    return [steady(item) for item in value] if isinstance(value, list) else value


READERS: dict[str, Callable[[Path], Any]] = {
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".safetensors": lambda path: safe_open(path, "np").__enter__(),
    ".arrow": read_arrow,
    ".parquet": pq.read_table,
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".pt": zipfile.ZipFile,
    ".pth": zipfile.ZipFile,
}


def half_files(folder: Path) -> list[str]:
    """Files that cannot be read although neither they nor a folder of theirs are hidden."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if any(part.startswith(".") for part in name.parts) or path.suffix not in READERS or not path.is_file():
            continue
        try:
            READERS[path.suffix](path)
        except Exception as error:
            found.append(f"{name}: {error}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--kills", type=int, default=10, help="of each job")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="benchmarks/results/kill_and_resume.json")
    arguments = parser.parse_args()
    for name in (*(f"hf_matryoshka.recipes.{name}" for name in MODULES), *OTHERS):
        importlib.import_module(name)
    rows, body = [], []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        prepare(data)
        for name in arguments.jobs:
            values = measure(JOBS[name], data, arguments.kills, random.Random(f"{arguments.seed} {name}"))
            row = {"system": name, "level": "cli", "split": "all", "low": None, "high": None, "seeds": 1}
            rows += [row | {"metric": metric, "value": value} for metric, value in values.items()]
            body.append([name, *(f"{value:g}" for value in values.values())])
            print(" ".join(body[-1]), flush=True)
    HUB.stop()
    print(format_rows(["job", "kills", "identical", "half files", "leftovers", "seconds"], body))
    print(write_report(arguments.out, "kill_and_resume", rows, kills=arguments.kills, seed=arguments.seed))


if __name__ == "__main__":
    main()
