"""How time and memory grow from 10,000 to 1,000,000 embeddings of 384 dimensions.

    python benchmarks/scale.py --out benchmarks/results/scale.json

`embed`: `embed_texts` of short texts by an encoder that only looks words up (so that what is measured is ours:
batching, files, checks), and `embed_again`: the same call, which finds them in the cache. `train_funnel`: a funnel of
the default size from a mapped Arrow file, 20 steps of 1,024, with all that comes before and after them;
`train_adaptor`: 50 unsupervised steps on vectors in memory, and the neighbours that they need. `evaluate`: nDCG@10 of
300 queries at 64 and 384 dimensions. `search`: the ten nearest of 100 queries at 64 and at 384 dimensions, exact.

Vectors are random with a spread that falls. `seconds`; `peak_mb`, the largest private memory of the process
(`RssAnon`, without pages of mapped files), and `loaded_mb`, what it is before the call; each in a process of its own.
`array_mb`: the vectors themselves.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from funnel_memory import write_vectors
from process_memory import measured
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from sentence_transformers.util import semantic_search

from hf_matryoshka import AdaptorVectors, FunnelRecipe, train_adaptor, train_funnel
from hf_matryoshka.data.base_models import DEFAULT_BASE_MODEL, load_base_model
from hf_matryoshka.data.embed import embed_texts
from hf_matryoshka.data.retrieval import RetrievalDataset
from hf_matryoshka.data.vectors import load_vectors
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.retrieval import score_retrieval
from hf_matryoshka.evaluation.table import format_rows
from hf_matryoshka.recipes.adaptor_recipe import AdaptorRecipe


WIDTH, DIMS = 384, (64, 384)


def embed(work: Path, count: int) -> None:
    tokenizer = load_base_model(DEFAULT_BASE_MODEL).tokenizer
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((len(tokenizer), WIDTH), dtype=np.float32)
    encoder = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)], device="cpu")
    words = ["river", "city", "cell", "bank", "tree", "engine", "letter", "stone"]
    texts = [f"{words[row % 8]} {words[row // 8 % 8]} number {row}" for row in range(count)]
    embed_texts(encoder, texts, cache_dir=work / f"cache{count}", batch_size=256, progress=False)


def funnel(work: Path, count: int) -> None:
    recipe = FunnelRecipe(vectors=str(work / f"{count}.arrow"), validation_fraction=0.02, test_fraction=0.02)
    training = {"max_steps": 20, "per_device_train_batch_size": 1024, "disable_tqdm": True}
    train_funnel(recipe, work / f"funnel{count}", training, overwrite=True)


def adaptor(work: Path, count: int) -> None:
    vectors = AdaptorVectors(np.array(load_vectors(work / f"{count}.arrow")))
    recipe = AdaptorRecipe(unsupervised_steps=50, validation_fraction=0)
    train_adaptor(vectors, work / f"adaptor{count}", recipe, training={"disable_tqdm": True}, overwrite=True)


def cut(vectors: np.ndarray, dim: int, kind: str) -> np.ndarray:
    return vectors[:, :dim]


def evaluate(work: Path, count: int) -> None:
    vectors = load_vectors(work / f"{count}.arrow")
    rng = np.random.default_rng(0)
    asked = rng.choice(count, 300, replace=False)
    ids = [str(row) for row in range(count)]
    queries = {f"q{number}": "" for number in range(len(asked))}
    qrels = {"test": {f"q{number}": {ids[row]: 1} for number, row in enumerate(asked)}}
    dataset = RetrievalDataset("random", ids, [""] * count, ids, list(queries), list(queries), qrels)
    noisy = vectors[np.sort(asked)] + 0.03 * rng.standard_normal((300, WIDTH), dtype=np.float32)
    score_retrieval(cut, noisy, vectors, dataset, DIMS, system="prefix")


def search(work: Path, count: int) -> None:
    vectors = np.array(load_vectors(work / f"{count}.arrow"))
    for dim in DIMS:
        semantic_search(vectors[:100, :dim].copy(), vectors[:, :dim].copy(), top_k=10)


STAGES = {
    "embed": embed,
    "embed_again": embed,
    "train_funnel": funnel,
    "train_adaptor": adaptor,
    "evaluate": evaluate,
    "search": search,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", nargs="*", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--systems", nargs="*", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--work", default="outputs/scale", type=Path)
    parser.add_argument("--out", default="benchmarks/results/scale.json")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for count in arguments.counts:
        # A run that is there already would be read and not repeated.
        for run in ("cache", "funnel", "adaptor"):
            shutil.rmtree(arguments.work / f"{run}{count}", ignore_errors=True)
        write_vectors(arguments.work / f"{count}.arrow", count, WIDTH)
        for stage in arguments.systems:
            found = measured(STAGES[stage], arguments.work, count) | {"array_mb": count * WIDTH * 4 / 2**20}
            row = {"system": stage, "level": f"{count} vectors", "split": "random", "low": None, "high": None}
            rows += [row | {"metric": metric, "value": value, "seeds": 1} for metric, value in found.items()]
            print(stage, count, {name: round(value, 1) for name, value in found.items()}, flush=True)
    shown = {(row["system"], row["level"], row["metric"]): row["value"] for row in rows}
    table = [
        [system, level, *(f"{shown[system, level, metric]:.1f}" for metric in ("seconds", "peak_mb", "loaded_mb"))]
        for system, level in dict.fromkeys((row["system"], row["level"]) for row in rows)
    ]
    print(format_rows(["what", "size", "seconds", "peak MB", "MB before"], table))
    print(write_report(arguments.out, "scale", rows))


if __name__ == "__main__":
    main()
