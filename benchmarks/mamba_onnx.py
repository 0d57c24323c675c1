"""A trained Matryoshka Mamba encoder as ONNX graphs: size, exactness, and what int8 costs on the STS-B test pairs.

    python benchmarks/mamba_onnx.py --model outputs/mamba_minilm/model --out benchmarks/results/mamba_onnx.json

Rows `bytes` have the share of the bytes of the float32 graph. Rows `max_difference` are the largest difference of an
embedding value from torch, on the sentences of all pairs; that of `onnx_stream` (`direction="causal"` only) compares
texts of ten sentences, in parts of 7 tokens, with the texts as a whole. Rows `spearman` are the rank correlation of
cosine and score, of the prefix of each dimension; `low` and `high` are its 95% interval, `relative_loss` is the share
of the torch score that is lost. int8 quantises activations by their range in the batch, here of 64 sentences of about
equal length.
"""

import argparse
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from stsb import SentencePairs, encoder
from transformers import AutoTokenizer

from hf_matryoshka.evaluation.report import write_report
from hf_matryoshka.hub.mamba_onnx_stream import OnnxMambaStream
from hf_matryoshka.hub.onnx_export import GRAPH_FILE, INT8_FILE, export_onnx
from hf_matryoshka.hub.onnx_stream import export_onnx_stream
from hf_matryoshka.modeling.modeling_matryoshka_mamba import MatryoshkaMambaModel
from hf_matryoshka.modeling.st_matryoshka_mamba import MatryoshkaMambaTransformer, mamba_sentence_encoder


GRAPHS = {"onnx_float32": GRAPH_FILE, "onnx_int8": INT8_FILE}
PART = 7


def stream_difference(stream: OnnxMambaStream, model: SentenceTransformer, sentences: list[str]) -> float:
    """Largest difference of an embedding value between texts in parts and whole texts in torch."""
    texts = [" ".join(sentences[start : start + 10]) for start in range(0, 100, 10)]
    largest = 0.0
    for text in texts:
        ids = model.tokenizer(text, return_tensors="np")["input_ids"]
        state = stream.new_state(1)
        for start in range(0, ids.shape[1], PART):
            state = stream.update(state, ids[:, start : start + PART])
        expected = model.encode([text], show_progress_bar=False)
        largest = max(largest, float(np.abs(stream.embed(state) - expected).max()))
    return largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a MatryoshkaMambaModel with its tokenizer")
    parser.add_argument("--data", default="../shared/data", type=Path, help="folder with stsb/")
    parser.add_argument("--out", default="benchmarks/results/mamba_onnx.json")
    arguments = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = mamba_sentence_encoder(MatryoshkaMambaModel.from_pretrained(arguments.model), tokenizer)
    first: MatryoshkaMambaTransformer = model[0]
    causal = first.model.config.direction == "causal"
    pairs = SentencePairs(arguments.data / "stsb" / "stsb-en-test.csv")
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        exported = export_onnx(model, Path(folder) / "onnx", matryoshka_dims=first.matryoshka_dims)
        seconds = time.perf_counter() - start
        sizes = {system: exported.sizes[name] for system, name in GRAPHS.items()}
        differences = {}
        if causal:
            stream = export_onnx_stream(first.model, exported.folder)
            sizes["onnx_stream"] = stream.nbytes
            differences["onnx_stream"] = stream_difference(OnnxMambaStream(stream.graph), model, pairs.first)
        vectors = {"torch": pairs.encode(encoder(model))}
        for system, file_name in GRAPHS.items():
            graph = SentenceTransformer(
                str(exported.folder), device="cpu", trust_remote_code=True, model_kwargs={"file_name": file_name}
            )
            vectors[system] = pairs.encode(encoder(graph))
            differences[system] = float(np.abs(vectors[system] - vectors["torch"]).max())

    rows = [
        {"system": system, "metric": "bytes", "value": size, "share": size / sizes["onnx_float32"]}
        for system, size in sizes.items()
    ]
    rows += [{"system": system, "metric": "max_difference", "value": value} for system, value in differences.items()]
    for dim in first.matryoshka_dims:
        reference = None
        for system, found in vectors.items():
            score = pairs.score(found, dim)
            reference = score["value"] if reference is None else reference
            row = {"system": system, "level": f"d{dim}", "split": "stsb_test", "metric": "spearman", **score}
            rows.append({**row, "relative_loss": 1 - score["value"] / reference})
    settings = {
        "threads": torch.get_num_threads(),
        "batch_size": 64,
        "direction": first.model.config.direction,
        "export_seconds": seconds,
        # On 256 built-in texts, against torch.
        "int8_loss": [asdict(loss) for loss in exported.int8],
    }
    for row in rows:
        print({key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()})
    print(settings)
    print(write_report(arguments.out, "mamba_onnx", rows, **settings))


if __name__ == "__main__":
    main()
