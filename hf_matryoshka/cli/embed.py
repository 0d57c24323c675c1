"""`hf-matryoshka embed`."""

from pathlib import Path
from typing import Annotated

import typer

from .command import print_json
from .options import JsonFlag


def embed(
    texts: Annotated[
        Path,
        typer.Argument(help="Texts: a .txt file with one a line, .jsonl, .csv or .tsv, or a BEIR folder (documents)."),
    ],
    output: Annotated[Path, typer.Argument(help="Vectors: a .parquet, .arrow or .npy file.")],
    model: Annotated[
        str, typer.Option(help="A folder or a Hub id of a sentence-transformers model.")
    ] = "sentence-transformers/all-MiniLM-L6-v2",
    field: Annotated[
        str, typer.Option(help="Field of the .jsonl file, or column of the table, that holds the text.")
    ] = "text",
    prompt: Annotated[str | None, typer.Option(help="Text to put before each text.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts a forward pass.")] = 32,
    json: JsonFlag = False,
) -> None:
    """Encode texts once at full width; an interrupted call goes on where it stopped.

    Example: hf-matryoshka embed corpus.jsonl vectors.parquet
    """
    from ..data.embed import embed_texts
    from ..data.texts import read_texts
    from ..data.vectors import check_vectors_path, save_vectors
    from ..recipes.cpu_memory import keep_freed_memory

    # Giving the memory of a batch back to the kernel each time takes long, the more so the longer the texts are.
    keep_freed_memory()
    check_vectors_path(output)
    found = read_texts(texts, field)
    vectors = embed_texts(model, found, prompt=prompt, batch_size=batch_size, name=texts.name)
    save_vectors(vectors, output)
    if json:
        print_json({"output": output, "vectors": len(vectors), "dim": vectors.shape[1]})
    else:
        print(f"{len(vectors)} vectors of {vectors.shape[1]} dimensions: {output}")
