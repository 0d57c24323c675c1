"""A Space on its way to the Hub."""

import os
from pathlib import Path

from huggingface_hub import HfApi

from .inside import check_no_links_out
from .push import PushedRepo, check_push
from .repo_sync import compare_repo, folder_files, push_repo, with_retries


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
        private (`bool`, *optional*): Whether the Space is private; by default a new one is as the account says.
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
    contents = folder_files(folder)
    change = with_retries(lambda: compare_repo(api, repo_id, contents, "space", mark=MARK), f"the push of {repo_id}")
    if change.foreign and not overwrite:
        raise FileExistsError(
            f"the Space {repo_id} on the Hub was not pushed from here; choose another name or pass --overwrite"
        )
    commit = push_repo(api, repo_id, contents, "Upload a Space", "space", private, space_sdk="gradio")
    return PushedRepo("space", change, commit)
