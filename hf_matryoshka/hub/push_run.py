"""The run of an optimiser on its way to the Hub: a data set of its trials, with a card."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData, HfApi

from .. import hub_cards
from .push import PushedRepo, check_push
from .repo_sync import compare_repo, push_repo, with_retries


STATE_FILE, TABLE_FILE = "state.json", "trials.jsonl"
# What a run of `hf-matryoshka optimize`, or one that `save_report` was called for, leaves in its folder.
FILES = (STATE_FILE, "trials.safetensors", "summary.json", "trace.png")


def push_run(
    run_folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    overwrite: bool = False,
    token: str | None = None,
) -> PushedRepo:
    """Brings a run to the Hub as a data set, in one commit, or in none if it is there already.

    `load_dataset` reads its trials as a table; with the files in a folder the run can be resumed.

    Args:
        run_folder (`str` or `Path`): Folder of the run, with its report (see [`~lsbo.report.save_report`]).
        repo_id (`str`): `"user/name"`, or `"name"` for the account of the token.
        private (`bool`, *optional*): Whether the repo is private; by default a new one is as the account says.
        overwrite (`bool`, *optional*, defaults to `False`): Whether to replace a data set that is no such run.
        token (`str`, *optional*): By default the one that is logged in.

    Returns:
        [`PushedRepo`]: What was done.

    Raises:
        FileNotFoundError: If the folder holds no run, or no report of it.
        ValueError: If the Hub would refuse the id.
        PermissionError: If there is no token, or it may not write there.
        FileExistsError: If the repo on the Hub holds something else.
        OSError: If the network or the Hub goes on failing.
    """
    folder = Path(run_folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} holds no run with its report (no {', no '.join(missing)}); save_report writes one"
        )
    repo_id, api = check_push(repo_id, token=token), HfApi(token=token)
    contents: dict[str, Path | bytes] = {name: folder / name for name in FILES}
    trials = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))["trials"]
    contents[TABLE_FILE] = "".join(json.dumps(trial) + "\n" for trial in trials).encode()
    report = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    contents["README.md"] = _card(report, repo_id).encode()

    change = with_retries(
        lambda: compare_repo(api, repo_id, contents, "dataset", mark=STATE_FILE), f"the push of {repo_id}"
    )
    if change.foreign and not overwrite:
        raise FileExistsError(
            f"the data set {repo_id} on the Hub is no run of an optimiser; choose another name or pass overwrite=True"
        )
    commit = push_repo(api, repo_id, contents, "Upload a run", "dataset", private)
    return PushedRepo("run", change, commit)


def _card(report: dict[str, Any], repo_id: str) -> str:
    objective = report["about"].get("objective")
    name = report["settings"]["optimizer"]
    title = f"{name}: {objective}" if objective else f"A run of {name}"
    data = DatasetCardData(
        pretty_name=title,
        tags=["hf-matryoshka", "bayesian-optimization"],
        configs=[{"config_name": "default", "data_files": TABLE_FILE}],
    )
    template = (Path(hub_cards.__file__).parent / "lsbo.md").read_text(encoding="utf-8")
    return str(DatasetCard.from_template(data, template_str=template, title=title, repo_id=repo_id, report=report))
