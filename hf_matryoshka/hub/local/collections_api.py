"""Collections: named lists of repos."""

from typing import TYPE_CHECKING, Any

from .access import check_owner, visible_repo
from .errors import HubError
from .messages import Request, Response, expect, paginate
from .names import REPO_TYPES, check_repo_id


if TYPE_CHECKING:
    from .local_hub import LocalHub

# key of the document -> type
_SETTINGS = {"title": str, "description": str, "private": bool, "position": int, "theme": str}


def listing(hub: "LocalHub", request: Request) -> Response:
    owners, items = request.query.get("owner", []), request.query.get("item", [])
    found = []
    for document in hub.collections.listing():
        value = _shown(hub, request, document)
        held = {f"{item['type']}s/{item['id']}" for item in value["items"]}
        hidden = document["private"] and request.account is None
        if not hidden and (not owners or document["owner"] in owners) and (not items or held & set(items)):
            value.pop("position")  # clients number the collections of a list themselves
            found.append(value)
    found.sort(key=lambda value: value["lastUpdated"], reverse=True)
    return paginate(request, found, 100, hub.endpoint)


def create(hub: "LocalHub", request: Request) -> Response:
    wanted = request.json()
    namespace = expect(wanted, "namespace", str, request.account.user)
    check_owner(request.account, namespace)
    settings = _settings(wanted)
    if not settings.get("title", "").strip():
        raise HubError(400, "A collection needs a title")
    document = hub.collections.create(namespace, settings)
    if "item" in wanted:
        document = _add(hub, request, document, wanted)
    return Response(_shown(hub, request, document))


def get(hub: "LocalHub", request: Request) -> Response:
    return Response(_shown(hub, request, _named(hub, request)))


def update(hub: "LocalHub", request: Request) -> Response:
    document = hub.collections.update(_own(hub, request), _settings(request.json()))
    return Response({"success": True, "data": _shown(hub, request, document)})


def delete(hub: "LocalHub", request: Request) -> Response:
    hub.collections.delete(_own(hub, request))
    return Response({"success": True})


def add_item(hub: "LocalHub", request: Request) -> Response:
    document = _add(hub, request, _own(hub, request), request.json())
    return Response(_shown(hub, request, document))


def update_item(hub: "LocalHub", request: Request) -> Response:
    wanted = request.json()
    note, position = expect(wanted, "note", str, None), expect(wanted, "position", int, None)
    hub.collections.update_item(_own(hub, request), request.names["item"], note, position)
    return Response({"success": True})


def delete_item(hub: "LocalHub", request: Request) -> Response:
    hub.collections.delete_item(_own(hub, request), request.names["item"])
    return Response({"success": True})


def _named(hub: "LocalHub", request: Request) -> dict[str, Any]:
    document = hub.collections.find(request.names["collection"])
    if document is None or (document["private"] and request.account is None):
        raise HubError(404, "Collection not found")
    return document


def _own(hub: "LocalHub", request: Request) -> dict[str, Any]:
    document = _named(hub, request)
    check_owner(request.account, document["owner"])
    return document


def _add(hub: "LocalHub", request: Request, document: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    item = expect(wanted, "item", dict)
    kind, name = item.get("type"), item.get("id")
    if kind not in REPO_TYPES:
        raise HubError(400, f"Invalid item type {kind!r}: collections of the local hub hold {', '.join(REPO_TYPES)}")
    visible_repo(hub, kind, check_repo_id(name), request.account)
    return hub.collections.add_item(document, kind, name, expect(wanted, "note", str, None))


def _settings(wanted: dict[str, Any]) -> dict[str, Any]:
    return {key: expect(wanted, key, kind) for key, kind in _SETTINGS.items() if key in wanted}


def _shown(hub: "LocalHub", request: Request, document: dict[str, Any]) -> dict[str, Any]:
    """A collection as the caller sees it, who must not learn of private repos without a token."""
    items = []
    for item in document["items"]:
        repo = hub.repositories.find(item["type"], item["id"])
        if repo and (request.account or not repo.private):
            shown = {"_id": item["_id"], "id": item["id"], "type": item["type"], "repoType": item["type"]}
            shown |= {"position": len(items), "private": repo.private}
            items.append(shown | ({"note": {"text": item["note"], "html": ""}} if item["note"] else {}))
    return {**document, "items": items, "upvotes": 0, "gating": False}
