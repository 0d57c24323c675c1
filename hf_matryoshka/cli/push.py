"""`hf-matryoshka push`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .command import print_json
from .options import JsonFlag


if TYPE_CHECKING:
    from ..hub.push import PushReport


def push(
    folder: Annotated[Path, typer.Argument(help="A family, or any repo of one: all its repos are pushed.")],
    repo_id: Annotated[str, typer.Argument(help="Hub id of the full repo, user/name; a level becomes user/name-d64.")],
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Who sees the repos; by default the setting of the account."),
    ] = None,
    collection: Annotated[bool, typer.Option(help="List the repos in a Collection.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and do nothing.")] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace repos that were not pushed from a family, or as another level."),
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Bring a family to the Hub: one commit a repo, then a Collection. What is there already is not sent again.

    Example: hf-matryoshka push outputs/quickstart me/minilm-matryoshka --private
    """
    from ..hub.family import load_family

    report = load_family(folder).push(
        repo_id, private=private, collection=collection, dry_run=dry_run, overwrite=overwrite
    )
    if json:
        print_json(
            {
                "dry_run": dry_run,
                "collection": report.collection,
                "repos": [
                    {
                        "name": repo.name,
                        "repo_id": repo.repo_id,
                        "add": repo.change.add,
                        "delete": repo.change.delete,
                        "bytes": repo.change.num_bytes,
                        "commit": repo.commit,
                    }
                    for repo in report.repos
                ],
            }
        )
        return
    print_push(report, dry_run)


def print_push(report: "PushReport", dry_run: bool = False) -> None:
    """A line a repo and one for the Collection."""
    for repo in report.repos:
        change = repo.change
        if change.empty:
            print(f"{repo.repo_id}: up to date")
            continue
        removed = f", {len(change.delete)} removed" if change.delete else ""
        word = "would get" if dry_run else "got"
        print(f"{repo.repo_id}: {word} {len(change.add)} files ({change.num_bytes / 1e6:.1f} MB){removed}")
    if report.collection:
        print(f"Collection: {report.collection}")
