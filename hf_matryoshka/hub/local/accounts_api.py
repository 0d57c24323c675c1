"""Who am I, and is this card's metadata valid."""

from typing import TYPE_CHECKING

from .cards import check_card
from .messages import Request, Response, expect


if TYPE_CHECKING:
    from .local_hub import LocalHub


def whoami(hub: "LocalHub", request: Request) -> Response:
    return Response(hub.accounts.describe(request.account))


def validate_yaml(hub: "LocalHub", request: Request) -> Response:
    errors, warnings = check_card(expect(request.json(), "content", str))
    value = {"errors": [{"message": text} for text in errors], "warnings": [{"message": text} for text in warnings]}
    return Response(value, status=400 if errors else 200)
