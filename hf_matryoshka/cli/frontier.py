"""`hf-matryoshka frontier`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .command import print_json
from .lists import integers
from .options import JsonFlag


def frontier(
    model: Annotated[
        Path, typer.Argument(help="Folder of a trained Mamba encoder, or of its run; it gets the result.")
    ],
    beir: Annotated[Path, typer.Option(help="Held-out retrieval data in BEIR format.")],
    split: Annotated[str, typer.Option(help="Split of the data.")] = "test",
    lengths: Annotated[
        Any, typer.Option(parser=integers, metavar="INTEGERS", help="Tokens of the texts that are timed; 16,...,1024.")
    ] = None,
    num_docs: Annotated[int, typer.Option(min=1, help="Size of an index, for the memory in the table.")] = 1_000_000,
    seq_len: Annotated[int, typer.Option(min=1, help="Tokens of a text, for the latency in the table.")] = 128,
    trust_remote_code: Annotated[bool, typer.Option(help="Run the code of the model's folder.")] = False,
    json: JsonFlag = False,
) -> None:
    """Measure what each dimension and width keeps and costs, for `select_optimal_dimension`; exports carry it along.

    Example: hf-matryoshka frontier runs/mamba --beir path/to/scifact
    """
    from sentence_transformers import SentenceTransformer

    from ..data.beir import load_beir
    from ..evaluation.measure_frontier import LENGTHS, measure_frontier
    from ..evaluation.table import format_rows
    from ..hub.trained_folder import load_trained_model
    from ..modeling.dimension_frontier import FRONTIER_FILE
    from ..modeling.st_matryoshka_mamba import MatryoshkaMambaTransformer
    from ..recipes.cpu_memory import keep_freed_memory

    # Giving the memory of long texts back to the kernel each time takes about as long as encoding them.
    keep_freed_memory()
    dataset, found = load_beir(beir), load_trained_model(model, trust_remote_code)
    encoder = None if found is None else found.model
    if (
        found is None
        or not isinstance(encoder, SentenceTransformer)
        or not isinstance(encoder[0], MatryoshkaMambaTransformer)
    ):
        raise ValueError(f"{model} holds no Mamba encoder with its tokenizer, which is what has a frontier")

    def encode(texts: list[str], level: str) -> Any:
        return encoder.encode(texts, level=level, show_progress_bar=True)

    measured = measure_frontier(
        encoder[0].model, encode, dataset, split=split, lengths=lengths or LENGTHS, progress=True
    )
    measured.save(found.folder / FRONTIER_FILE)
    rows = measured.trade_offs(num_docs=num_docs, seq_len=seq_len)
    if json:
        print_json(rows)
        return
    body = [[row["level"], str(row["dim"]), *(f"{row[name]:.4g}" for name in list(row)[2:])] for row in rows]
    print(format_rows(["level", "dim", measured.metric, "retained", "assured", "latency ms", "memory MB"], body))
    print(found.folder / FRONTIER_FILE)
