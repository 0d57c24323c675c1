"""Branches and tags."""

from typing import TYPE_CHECKING

from .access import named_repo
from .errors import HubError
from .messages import Request, Response, expect
from .names import check_new_ref, check_ref
from .repository import MAIN


if TYPE_CHECKING:
    from .local_hub import LocalHub

NO_PULL_REQUESTS = "The local hub has no pull requests and no discussions: commit to a branch instead"


def listing(hub: "LocalHub", request: Request) -> Response:
    state = named_repo(hub, request).state
    value = {
        kind: [
            {"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": sha} for name, sha in state[kind].items()
        ]
        for kind, folder in (("branches", "heads"), ("tags", "tags"))
    }
    return Response({**value, "converts": [], "pullRequests": []})


def create_branch(hub: "LocalHub", request: Request) -> Response:
    start = expect(request.json() if not request.body.ended else {}, "startingPoint", str, MAIN)
    named_repo(hub, request).create_branch(check_new_ref(request.names["ref"]), check_ref(start))
    return Response({})


def delete_branch(hub: "LocalHub", request: Request) -> Response:
    named_repo(hub, request).delete_ref("branches", request.names["ref"])
    return Response({})


def create_tag(hub: "LocalHub", request: Request) -> Response:
    tag = check_new_ref(expect(request.json(), "tag", str))
    named_repo(hub, request).create_tag(tag, request.names["revision"])
    return Response({})


def delete_tag(hub: "LocalHub", request: Request) -> Response:
    named_repo(hub, request).delete_ref("tags", request.names["ref"])
    return Response({})


def no_discussions(hub: "LocalHub", request: Request) -> Response:
    named_repo(hub, request)
    raise HubError(400, NO_PULL_REQUESTS)
