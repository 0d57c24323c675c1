"""all-MiniLM-L6-v2 with an adaptor, as torch model and as ONNX graphs: speed, size, and what int8 costs on SciFact.

    python benchmarks/onnx_minilm.py --data ../shared/data/scifact --out benchmarks/results/onnx_minilm.json

The adaptor is the rotation to the principal directions of the timed documents, without training: what is compared is
one model in three forms. Rows `speedup_over_torch` are documents a second over those of torch in the same round, all
forms on equally many threads; the value is the median of the rounds, `low` and `high` the slowest and the fastest.
Rows `ndcg_at_10` are the 300 test queries against all documents; `loss` is the float32 graph minus the int8 one with
a paired bootstrap over the queries. The torch model gives the vectors of the float32 graph (`max_difference`), so it
is not scored again. int8 quantises activations by their range in the batch, so its vectors depend on the batches:
`onnx_int8` has batches of 32 out of 256 neighbouring documents, sorted by length, `onnx_int8_one_by_one` embeds each
text alone. The difference of the two is a second uncertainty, which the interval does not hold.
"""

import argparse
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from hf_matryoshka.data.base_models import DEFAULT_BASE_MODEL, load_base_model
from hf_matryoshka.data.beir import load_beir
from hf_matryoshka.data.embed import embed_texts
from hf_matryoshka.evaluation.bootstrap import paired_bootstrap
from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.evaluation.retrieval import score_retrieval
from hf_matryoshka.hub.onnx_export import GRAPH_FILE, INT8_FILE, export_onnx
from hf_matryoshka.hub.self_contained import append_modules
from hf_matryoshka.modeling.st_matryoshka_adaptor import MatryoshkaAdaptor
from hf_matryoshka.surgery.adaptor_init import create_adaptor


DIMS = [16, 32, 64, 128, 192, 256, 384]
GRAPHS = {"onnx_float32": GRAPH_FILE, "onnx_int8": INT8_FILE}


def documents_per_second(model: SentenceTransformer, documents: list[str]) -> float:
    start = time.perf_counter()
    model.encode(documents, show_progress_bar=False)
    return len(documents) / (time.perf_counter() - start)


def prefix(vectors: np.ndarray, dim: int, kind: str) -> np.ndarray:
    return vectors[:, :dim]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/scifact", help="SciFact in BEIR format")
    parser.add_argument("--model", default=DEFAULT_BASE_MODEL)
    parser.add_argument("--documents", type=int, default=200, help="documents that are timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", default="benchmarks/results/onnx_minilm.json")
    arguments = parser.parse_args()

    dataset = load_beir(arguments.data)
    timed = dataset.documents()[: arguments.documents]
    base = load_base_model(arguments.model, device="cpu")
    adaptor = create_adaptor(base.encode(timed), kind="orthogonal", matryoshka_dims=DIMS)
    forms = {"torch": append_modules(base, [MatryoshkaAdaptor(adaptor.eval())])}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        exported = export_onnx(forms["torch"], Path(folder) / "onnx", matryoshka_dims=DIMS, samples=timed)
        seconds = time.perf_counter() - start
        for form, file_name in GRAPHS.items():
            forms[form] = SentenceTransformer(
                str(exported.folder), device="cpu", trust_remote_code=True, model_kwargs={"file_name": file_name}
            )
        rounds = [
            {form: documents_per_second(model, timed) for form, model in forms.items()}
            for _ in range(arguments.rounds)
        ]
        curves = {}
        for system in (*GRAPHS, "onnx_int8_one_by_one"):
            queries, documents = (
                forms["onnx_int8"].encode(texts, batch_size=1)
                if system == "onnx_int8_one_by_one"
                else embed_texts(forms[system], texts, name=f"{name} ({system})")
                for name, texts in (("queries", dataset.queries), ("documents", dataset.documents()))
            )
            curves[system] = score_retrieval(prefix, queries, documents, dataset, DIMS, system=system)["test"]

    sizes = {"torch": sum(tensor.nbytes for tensor in forms["torch"].state_dict().values())}
    sizes |= {form: exported.sizes[file_name] for form, file_name in GRAPHS.items()}
    rows = []
    for form in forms:
        ratios = sorted(measured[form] / measured["torch"] for measured in rounds)
        rows.append(
            {
                "system": form,
                "metric": "speedup_over_torch",
                "value": float(np.median(ratios)),
                "low": ratios[0],
                "high": ratios[-1],
                "bytes": sizes[form],
            }
        )
    float32 = curves["onnx_float32"]
    for curve in curves.values():
        for row in curve.rows():
            level = row["level"]
            loss, low, high = paired_bootstrap(float32[level].per_query, curve[level].per_query)
            row |= {"loss": loss, "loss_low": low, "loss_high": high}
            rows.append(row)
    int8_loss = [asdict(loss) for loss in exported.int8]
    settings = {
        "threads": torch.get_num_threads(),
        "batch_size": 32,
        "timed_documents": len(timed),
        "rounds": arguments.rounds,
        "max_difference": exported.max_difference,
        "export_seconds": seconds,
        # On the timed documents, against torch.
        "int8_loss": int8_loss,
    }
    for row in rows:
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
    print(settings)
    print(write_report(arguments.out, "onnx_minilm", rows, **settings))


if __name__ == "__main__":
    main()
