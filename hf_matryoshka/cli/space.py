"""`hf-matryoshka space`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .command import print_json
from .lists import strings
from .options import JsonFlag


def space(
    model: Annotated[str, typer.Argument(help="An exported family, or a repo of one: a folder or a Hub id.")],
    output: Annotated[Path, typer.Argument(help="New folder for the Space.")],
    corpus: Annotated[
        Path,
        typer.Option(help="Texts to search: a .txt file with one a line, .jsonl, .csv or .tsv, or a BEIR folder."),
    ],
    field: Annotated[
        str, typer.Option(help="Field of the .jsonl file, or column of the table, that holds the text.")
    ] = "text",
    max_texts: Annotated[int | None, typer.Option(min=1, help="Only the first texts of the corpus.")] = None,
    levels: Annotated[
        Any, typer.Option(parser=strings, metavar="NAMES", help="Only these levels, such as d16,d64.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="How vectors are stored: float32 or float16.")] = "float32",
    title: Annotated[str | None, typer.Option(help="Title of the Space.")] = None,
    example: Annotated[
        list[str] | None, typer.Option(help="Query to click on; repeatable, the first is there at the start.")
    ] = None,
    license: Annotated[str | None, typer.Option(help="License id, by default that of the model's card.")] = None,
    push_to_hub: Annotated[str | None, typer.Option(help="Hub id, user/name, that the Space is pushed to.")] = None,
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Who sees a new Space; by default the setting of the account."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier Space in the folder, or any on the Hub.")
    ] = False,
    trust_remote_code: Annotated[
        bool, typer.Option(help="Run the code of the model's repo, here and in the Space.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Write a Gradio Space: type a query, move a slider over the levels, see results, latency and bytes change.

    Example: hf-matryoshka space outputs/quickstart outputs/space --trust-remote-code --corpus corpus.jsonl
    """
    from ..hub.space import build_space

    made = build_space(
        model,
        output,
        corpus,
        field=field,
        max_texts=max_texts,
        levels=levels,
        dtype=dtype,
        title=title,
        examples=example or (),
        license=license,
        push_to_hub=push_to_hub,
        private=private,
        overwrite=overwrite,
        trust_remote_code=trust_remote_code,
    )
    repo_id = made.push and made.push.repo_id
    if json:
        print_json(
            {
                "folder": made.folder,
                "levels": made.levels,
                "texts": made.num_texts,
                "bytes": made.num_bytes,
                "repo_id": repo_id,
                "commit": made.push and made.push.commit,
            }
        )
        return
    print(f"{made.folder}: {made.num_texts} texts, levels {', '.join(made.levels)}, {made.num_bytes / 1e6:.1f} MB")
    print(f"Run it: pip install -r {made.folder}/requirements.txt && python {made.folder}/app.py")
    if made.push is not None:
        print(f"Space: {repo_id}{'' if made.push.commit else ', up to date'}")
