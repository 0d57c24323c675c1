"""`hf-matryoshka pack`."""

from pathlib import Path
from typing import Annotated

import typer

from .command import print_json
from .options import JsonFlag


def pack(
    texts: Annotated[
        Path,
        typer.Argument(
            help="Texts: a .txt file with one a line, .jsonl, .csv or .tsv (or .gz of these), or a BEIR folder."
        ),
    ],
    output: Annotated[Path, typer.Argument(help="New folder for the rows, for datasets.load_from_disk.")],
    tokenizer: Annotated[
        str, typer.Option(help="Tokenizer of the model to train: a folder or a Hub id.")
    ] = "sentence-transformers/all-MiniLM-L6-v2",
    max_length: Annotated[int, typer.Option(help="Tokens of a row; longer documents are split.")] = 512,
    fill: Annotated[
        bool, typer.Option("--fill", help="Split shorter documents, too, where that fills a row.")
    ] = False,
    num_proc: Annotated[int, typer.Option(min=1, help="Processes that tokenise.")] = 1,
    buffer_size: Annotated[int, typer.Option(min=1, help="Most texts that are packed together.")] = 50_000,
    field: Annotated[
        str, typer.Option(help="Field of the .jsonl file, or column of the table, that holds the text.")
    ] = "text",
    json: JsonFlag = False,
) -> None:
    """Tokenise texts and pack them into full rows for masked language modelling; no token is dropped.

    The file is read as a stream, so it may be larger than the memory; an interrupted call goes on where it stopped.

    Example: hf-matryoshka pack texts.jsonl packed --max-length 512 --num-proc 2
    """
    from ..data.pack import check_output, pack_texts
    from ..data.texts import iter_texts
    from ..data.tokens import load_tokenizer

    check_output(output)
    # One reading more, which costs little beside tokenising: a bad line is found before any work, and the time that
    # is left can be told.
    total = sum(1 for _ in iter_texts(texts, field))
    if total == 0:
        raise ValueError(f"{texts} holds no text")
    info = pack_texts(
        iter_texts(texts, field),
        output,
        load_tokenizer(tokenizer),
        max_length=max_length,
        fill=fill,
        num_proc=num_proc,
        buffer_size=buffer_size,
        total=total,
    )
    if json:
        print_json({"output": output, **info.to_dict()})
        return
    print(f"{info.num_documents} documents ({info.num_tokens} tokens) in {info.num_rows} rows of {info.max_length}")
    if info.num_empty:
        print(f"{info.num_empty} texts have no token")
    print(f"Useful tokens: {info.useful_tokens:.2%}")
    print(f"Rows: {output}")
