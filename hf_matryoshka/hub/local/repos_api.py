"""Create, describe, list, change, move and delete repos."""

import json
from typing import TYPE_CHECKING, Any

from .access import named_repo, own_repo_id, visible_repo
from .cards import card_tags, read_metadata
from .errors import HubError
from .messages import Request, Response, expect, paginate
from .names import check_repo_type
from .repository import MAIN, Commit, Repository
from .trees_api import lfs_facts


if TYPE_CHECKING:
    from .local_hub import LocalHub

VISIBILITIES = ("public", "private")


def create(hub: "LocalHub", request: Request) -> Response:
    wanted = request.json()
    repo_type = check_repo_type(wanted.get("type") or "model")
    repo_id = own_repo_id(request.account, wanted.get("name"), wanted.get("organization"))
    private = _is_private(wanted) or False
    sdk = expect(wanted, "sdk", str, None)
    if repo_type == "space" and sdk is None:
        raise HubError(400, "A space needs an sdk: gradio, docker or static")
    try:
        repo = hub.repositories.create(repo_type, repo_id, private, sdk, request.account.user)
    except HubError as error:
        # Clients read the address from the refusal when they accept an existing repo.
        error.body["url"] = repo_url(hub, repo_type, repo_id)
        raise
    return Response({"url": repo_url(hub, repo_type, repo_id), "name": repo.id, "id": repo.id})


def delete(hub: "LocalHub", request: Request) -> Response:
    wanted = request.json()
    repo_type = check_repo_type(wanted.get("type") or "model")
    repo_id = own_repo_id(request.account, wanted.get("name"), wanted.get("organization"))
    hub.repositories.delete(visible_repo(hub, repo_type, repo_id, request.account))
    hub.collections.forget(repo_type, repo_id)
    return Response({})


def move(hub: "LocalHub", request: Request) -> Response:
    wanted = request.json()
    repo_type = check_repo_type(wanted.get("type") or "model")
    source = own_repo_id(request.account, wanted.get("fromRepo"))
    target = own_repo_id(request.account, wanted.get("toRepo"))
    hub.repositories.move(visible_repo(hub, repo_type, source, request.account), target)
    hub.collections.rename(repo_type, source, target)
    return Response({"url": repo_url(hub, repo_type, target)})


def settings(hub: "LocalHub", request: Request) -> Response:
    repo = named_repo(hub, request)
    wanted = request.json()
    private = _is_private(wanted)
    if private is not None:
        repo.update(private=private)
    if "gated" in wanted:
        if wanted["gated"] not in ("auto", "manual", False):
            raise HubError(400, f"Invalid gated {wanted['gated']!r}: use auto, manual or false")
        repo.update(gated=wanted["gated"])
    return Response({"private": repo.private})


def auth_check(hub: "LocalHub", request: Request) -> Response:
    named_repo(hub, request)
    return Response({})


def info(hub: "LocalHub", request: Request) -> Response:
    repo = named_repo(hub, request)
    revision = request.names.get("revision", MAIN)
    value = describe(hub, repo, repo.commit(revision), blobs=request.flag("blobs"))
    expand = request.query.get("expand", []) + request.query.get("expand[]", [])
    if expand:
        value = {key: value[key] for key in ("_id", "id", *expand) if key in value}
    return Response(value)


def listing(hub: "LocalHub", request: Request) -> Response:
    repo_type = request.names["types"].removesuffix("s")
    author, search = request.text("author"), (request.text("search") or "").lower()
    tags = [tag for text in request.query.get("filter", []) for tag in text.split(",")]
    found = []
    for repo in hub.repositories.listing(repo_type):
        if (request.account is None and repo.private) or search not in repo.id.lower():
            continue
        if author is None or repo.id.split("/")[0] == author:
            value = describe(hub, repo, repo.commit(MAIN))
            if set(tags) <= set(value["tags"]):
                found.append(value)
    found.sort(key=lambda value: value["lastModified"], reverse=True)
    return paginate(request, found, 1000, hub.endpoint)


def storage(hub: "LocalHub", request: Request) -> Response:
    """The caller's repos of all types, with the room that they take."""
    found = []
    for repo in hub.repositories.listing():
        if request.account.owns(repo.id.split("/")[0]):
            commit = repo.commit(MAIN)
            visibility = "private" if repo.private else "public"
            size = sum(file.size for file in commit.files.values())
            value = {"id": repo.id, "type": repo.type, "updatedAt": commit.date, "visibility": visibility}
            found.append({**value, "storage": size})
    return paginate(request, found, 1000, hub.endpoint)


def describe(hub: "LocalHub", repo: Repository, commit: Commit, blobs: bool = False) -> dict[str, Any]:
    """What the Hub tells of a repo at a commit."""
    state = repo.state
    card = _card(hub, commit)
    siblings = [{"rfilename": path} for path in commit.files]
    if blobs:
        for sibling, file in zip(siblings, commit.files.values(), strict=True):
            sibling |= {"size": file.size, "blobId": file.oid}
            if file.lfs:
                lfs = lfs_facts(file)
                sibling["lfs"] = {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}
    value = {
        "_id": state["created_at"],
        "id": repo.id,
        "author": repo.id.split("/")[0],
        "sha": commit.sha,
        "createdAt": state["created_at"],
        "lastModified": commit.date,
        "private": state["private"],
        "gated": state["gated"],
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": card_tags(card),
        "cardData": card,
        "siblings": siblings,
        "usedStorage": sum(file.size for file in commit.files.values()),
    }
    if repo.type == "model":
        value["modelId"] = repo.id
        value |= {key: card[key] for key in ("pipeline_tag", "library_name") if key in card}
        value |= {"config": _config(hub, commit)} if "config.json" in commit.files else {}
    if repo.type == "space":
        value |= {
            "sdk": state["sdk"],
            "runtime": {"stage": "STOPPED", "hardware": {"current": None, "requested": None}},
        }
    return value


def repo_url(hub: "LocalHub", repo_type: str, repo_id: str) -> str:
    return f"{hub.endpoint}/{'' if repo_type == 'model' else f'{repo_type}s/'}{repo_id}"


def _card(hub: "LocalHub", commit: Commit) -> dict[str, Any]:
    if "README.md" not in commit.files:
        return {}
    try:
        metadata = read_metadata(hub.objects.read(commit.files["README.md"].sha256).decode(errors="replace"))
    except ValueError:
        return {}
    return json.loads(json.dumps(metadata, default=str, skipkeys=True))  # YAML knows dates, JSON does not


def _config(hub: "LocalHub", commit: Commit) -> dict[str, Any]:
    try:
        config = json.loads(hub.objects.read(commit.files["config.json"].sha256))
    except (ValueError, RecursionError):
        return {}
    return {key: config[key] for key in ("architectures", "auto_map", "model_type") if key in config}


def _is_private(wanted: dict[str, Any]) -> bool | None:
    visibility = expect(wanted, "visibility", str, None)
    if visibility is None:
        return expect(wanted, "private", bool, None)
    if visibility not in VISIBILITIES:
        raise HubError(400, f"Invalid visibility {visibility!r}: the local hub has {' and '.join(VISIBILITIES)}")
    return visibility == "private"
