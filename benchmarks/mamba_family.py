"""The exported family of a trained Mamba encoder, as its users load it: quality, exactness and bytes of each repo.

    hf-matryoshka train mamba outputs/mamba_minilm --config configs/mamba_minilm.yaml
    hf-matryoshka frontier outputs/mamba_minilm --beir ../shared/data/scifact
    hf-matryoshka export outputs/mamba_minilm outputs/mamba_family --onnx
    python benchmarks/mamba_family.py --family outputs/mamba_family --out benchmarks/results/mamba_family.json

Each repo of a width is loaded by sentence-transformers with the code that it holds (`remote_code`), and its int8 graph
with ONNX Runtime (`onnx_int8`). `stsb_test`: Spearman correlation of cosine and score at each dimension, with its 95%
interval over the pairs, and `retained`, the share of that at the largest dimension. `scifact_test`: nDCG@10 of the
frontier in the `full` repo (float32, documents whole), `retained` beside the frontier's last point and `assured`, its
lower bound with 95% confidence; `latency_ms` of a text of 128 tokens, on the machine and under the load of that
measurement. `max_difference`: largest difference of an output value from the trained model that the export measured.
`bytes`: of the weights and of each graph.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from stsb import SentencePairs, encoder

from hf_matryoshka import load_family
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.table import format_rows
from hf_matryoshka.modeling.dimension_frontier import FRONTIER_FILE, Frontier


INT8 = "onnx/model_int8.onnx"


def load(repo: Path, system: str) -> SentenceTransformer:
    folder, options = repo, {}
    if system == "onnx_int8":
        folder, options = repo / "onnx", {"model_kwargs": {"file_name": Path(INT8).name}}
    return SentenceTransformer(str(folder), device="cpu", trust_remote_code=True, **options)


def frontier_rows(frontier: Frontier) -> Iterator[dict[str, Any]]:
    for point in frontier.trade_offs(seq_len=128):
        row = {"system": "frontier", "width": point["level"], "level": f"d{point['dim']}", "split": "scifact_test"}
        quality = {"metric": frontier.metric, "value": point["quality"], "retained": point["retained"]}
        yield row | quality | {"assured": point["assured"], "low": None, "high": None, "seeds": 1}
        yield row | {"metric": "latency_ms", "value": point["latency_ms"], "low": None, "high": None, "seeds": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="outputs/mamba_family", type=Path)
    parser.add_argument("--data", default="../shared/data", type=Path, help="folder with stsb/")
    parser.add_argument("--out", default="benchmarks/results/mamba_family.json")
    arguments = parser.parse_args()

    family = load_family(arguments.family)
    pairs = SentencePairs(arguments.data / "stsb" / "stsb-en-test.csv")
    rows: list[dict[str, Any]] = []
    for name, repo in family.repos.items():
        files = sorted([*repo.folder.glob("*.safetensors"), *repo.folder.glob("onnx/*.onnx")])
        for path in files:
            row = {"system": path.relative_to(repo.folder).as_posix(), "level": name, "metric": "bytes"}
            rows.append(row | {"value": path.stat().st_size})
        row = {"system": "remote_code", "level": name, "metric": "max_difference"}
        rows.append(row | {"value": repo.max_difference})
        # `full` computes what they do: the export compared all its levels with the same model.
        for system in ("remote_code", "onnx_int8") if name != "full" else ():
            model = load(repo.folder, system)
            vectors = pairs.encode(encoder(model))
            found = {dim: pairs.score(vectors, dim) for dim in family.manifest.matryoshka_dims}
            last = list(found.values())[-1]["value"]
            for dim, score in found.items():
                row = {"system": system, "width": name, "level": f"d{dim}", "split": "stsb_test", "metric": "spearman"}
                rows.append(row | score | {"retained": score["value"] / last, "seeds": 1})
            print(name, system, {dim: round(100 * score["value"], 2) for dim, score in found.items()}, flush=True)
    frontier = Frontier.load(family.repos["full"].folder / FRONTIER_FILE)
    rows += frontier_rows(frontier)
    body = [[str(row.get(key, "-")) for key in ("width", "level", "metric", "value", "retained")] for row in rows]
    print(format_rows(["width", "level", "metric", "value", "retained"], body))
    print(write_report(arguments.out, "mamba_family", rows, queries=len(frontier.points[0].scores)))


if __name__ == "__main__":
    main()
