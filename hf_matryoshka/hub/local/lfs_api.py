"""Git LFS: which large files are still to be uploaded, and their upload."""

import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Any

from .access import named_repo
from .errors import HubError
from .messages import Request, Response, expect
from .names import check_oid


if TYPE_CHECKING:
    from .local_hub import LocalHub

UPLOAD_SECONDS = 24 * 3600


def batch(hub: "LocalHub", request: Request) -> Response:
    named_repo(hub, request)
    wanted = request.json()
    if wanted.get("operation") != "upload" or wanted.get("hash_algo", "sha256") != "sha256":
        raise HubError(400, "The local hub's LFS takes uploads by sha256 only; download files from their address")
    return Response({"transfer": "basic", "objects": [_action(hub, item) for item in expect(wanted, "objects", list)]})


def _action(hub: "LocalHub", item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise HubError(400, "The request's 'objects' must be a list of objects")
    oid, size = check_oid(item.get("oid")), expect(item, "size", int)
    answer: dict[str, Any] = {"oid": oid, "size": size}
    if size < 0 or size > hub.max_upload_bytes:
        message = f"the file has {size} bytes, the limit of this hub is {hub.max_upload_bytes}"
        return {**answer, "error": {"code": 413, "message": message}}
    if hub.objects.size(oid) == size:
        return answer  # nothing to upload
    expires = int(time.time()) + UPLOAD_SECONDS
    href = f"{hub.endpoint}/api/lfs/{oid}?size={size}&expires={expires}&signature={_sign(hub, oid, size, expires)}"
    return {
        **answer,
        "authenticated": True,
        "actions": {"upload": {"href": href}, "verify": {"href": f"{hub.endpoint}/api/lfs/{oid}/verify"}},
    }


def upload(hub: "LocalHub", request: Request) -> Response:
    """Take a content. Clients send no token here: the signature says that one was shown for this very content."""
    oid = request.names["oid"]
    size, expires = request.text("size") or "", request.text("expires") or ""
    if not (size.isdecimal() and expires.isdecimal()):
        raise HubError(403, "The address of the upload is not one that this hub gave out")
    # As bytes: of text, only ASCII can be compared.
    given, signature = request.text("signature") or "", _sign(hub, oid, int(size), int(expires))
    if not hmac.compare_digest(signature.encode(), given.encode("utf-8", "replace")) or int(expires) < time.time():
        raise HubError(403, "The address of the upload is not one that this hub gave out, or is too old")
    request.body.limit(hub.max_upload_bytes)
    stored = hub.objects.add(request.body.chunks(int(size)), oid, int(size))
    return Response(None, headers={"ETag": f'"{stored.sha256}"'})


def verify(hub: "LocalHub", request: Request) -> Response:
    oid = request.names["oid"]
    wanted = request.json()
    if wanted.get("oid") != oid or hub.objects.size(oid) != wanted.get("size"):
        raise HubError(404, f"The LFS object {oid} was not uploaded, or has another size")
    return Response({})


def no_xet(hub: "LocalHub", request: Request) -> Response:
    raise HubError(
        404, "The local hub has no xet storage: set HF_HUB_DISABLE_XET=1 before huggingface_hub is imported"
    )


def _sign(hub: "LocalHub", oid: str, size: int, expires: int) -> str:
    return hmac.new(hub.secret, f"{oid} {size} {expires}".encode(), hashlib.sha256).hexdigest()
