"""A Space on its way to the Hub."""

import os
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi

from .inside import check_no_links_out
from .push import LOCAL_FOLDERS, PushedRepo, check_push
from .repo_sync import RepoChange, commit_change, compare_repo, with_retries


# As `space.py` writes it: the mark of a Space that came from here.
MARK = "space.json"


def push_space(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    private: bool | None = None,
    overwrite: bool = False,
    token: str | None = None,
) -> PushedRepo:
    """Bring a Space to the Hub in one commit, or in none if it is there already.

    Args:
        folder (`str` or `os.PathLike`): What [`build_space`] wrote; `app.py` and the rest may have been edited since.
        repo_id (`str`): `"user/name"`, or `"name"` for the account of the token.
        private (`bool`, *optional*): Whether a new Space is private; by default the setting of the account.
        overwrite (`bool`, *optional*, defaults to `False`): Whether to replace a Space that holds something else.
        token (`str`, *optional*): By default the one that is logged in.

    Returns:
        [`PushedRepo`]: What was done.

    Raises:
        FileNotFoundError: If the folder holds no Space.
        ValueError: If the Hub would refuse the id, or a link leads out of the folder.
        PermissionError: If there is no token, or it may not write there.
        FileExistsError: If the Space on the Hub holds something else.
        OSError: If the network or the Hub goes on failing.
    """
    folder = Path(folder)
    if not (folder / MARK).is_file():
        raise FileNotFoundError(f"{folder} holds no Space (no {MARK}); `hf-matryoshka space` writes one")
    check_no_links_out(folder)
    repo_id, api = check_push(repo_id, token=token), HfApi(token=token)
    contents: dict[str, Path | bytes] = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not LOCAL_FOLDERS.intersection(path.relative_to(folder).parts)
    }
    what = f"the push of {repo_id}"

    def compare() -> RepoChange:
        return with_retries(lambda: compare_repo(api, repo_id, contents, "space", mark=MARK), what)

    change = compare()
    if change.foreign and not overwrite:
        raise FileExistsError(
            f"the Space {repo_id} on the Hub was not pushed from here; choose another name or pass --overwrite"
        )
    created = partial(api.create_repo, repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
    with_retries(created, what)
    commits: list[str] = []

    def attempt() -> None:
        # Compared anew: an earlier attempt may have gone through although its answer was lost.
        left = compare()
        if not left.empty:
            commits.append(commit_change(api, left, contents, "Upload a Space", "space"))

    with_retries(attempt, what)
    return PushedRepo("space", change, commits[-1] if commits else None)
