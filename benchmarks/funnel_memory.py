"""Memory of training a funnel on a file of embeddings, by the number of embeddings.

    python benchmarks/funnel_memory.py --out benchmarks/results/funnel_memory.json

Arrow files of random unit vectors of width 768 are written to `--work` piece by piece (1.5 million: 4.6 GB), and a
funnel of the original's size is trained on each for `--steps` steps of 16,384, by the whole recipe: check of the file,
start, training, densities, report. `peak_mb`: the largest private memory of the process (`RssAnon`), read ten times a
second; pages of the file that the system keeps while it has memory to spare are not in it. `loaded_mb`: what it is
once the program is loaded and no file is open.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
from process_memory import measured

from hf_matryoshka import FunnelRecipe, train_funnel
from hf_matryoshka.data.arrow import vectors_table
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.table import format_rows


WIDTH, PIECE, BATCH = 768, 50_000, 16_384


def write_vectors(path: Path, count: int, width: int = WIDTH) -> None:
    """Random unit vectors with a spread that falls, as that of embeddings does."""
    if path.is_file():
        return
    rng, spread = np.random.default_rng(0), np.linspace(1, 0.05, width, dtype=np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    writer = None
    for start in range(0, count, PIECE):
        rows = rng.standard_normal((min(PIECE, count - start), width), dtype=np.float32) * spread
        table = vectors_table(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        writer = writer or pa.ipc.new_stream(str(temporary), table.schema)
        writer.write_table(table)
    writer.close()
    temporary.rename(path)


def train(path: Path, work: Path, steps: int) -> dict[str, float]:
    recipe = FunnelRecipe(vectors=str(path), preset="original", validation_fraction=0.02, test_fraction=0.02)
    training = {"max_steps": steps, "per_device_train_batch_size": BATCH, "disable_tqdm": True, "save_steps": steps}
    return {"training_seconds": train_funnel(recipe, work, training, overwrite=True).report["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", nargs="*", type=int, default=[50_000, 300_000, 1_500_000])
    parser.add_argument("--steps", default=5, type=int)
    parser.add_argument("--work", default="outputs/funnel_memory", type=Path)
    parser.add_argument("--out", default="benchmarks/results/funnel_memory.json")
    arguments = parser.parse_args()

    rows = []
    for count in arguments.counts:
        path = arguments.work / f"{count}.arrow"
        write_vectors(path, count)
        found = measured(train, path, arguments.work / f"run{count}", arguments.steps)
        for metric, value in found.items():
            row = {"system": "ours", "level": "all", "split": "random", "metric": metric, "value": value}
            rows.append(row | {"embeddings": count, "file_mb": path.stat().st_size / 2**20})
        print(rows[-4:], flush=True)
        path.unlink()
    table = [[f"{row['embeddings']:,}", row["metric"], f"{row['value']:.1f}"] for row in rows]
    print(format_rows(["embeddings", "metric", "value"], table))
    print(write_report(arguments.out, "funnel_memory", rows, steps=arguments.steps, batch=BATCH))


if __name__ == "__main__":
    main()
