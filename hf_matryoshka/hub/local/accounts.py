"""Who may do what: one user with a token that writes and a token that only reads."""

import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import HubError
from .objects import read_json, write_json


@dataclass(frozen=True)
class Account:
    """The bearer of a token.

    Args:
        user (`str`): Name of the user.
        orgs (`tuple`): Names of the organisations in which the user may write.
        role (`str`): "write" or "read".
    """

    user: str
    orgs: tuple[str, ...]
    role: str

    def owns(self, namespace: str) -> bool:
        return namespace == self.user or namespace in self.orgs


class Accounts:
    """The tokens of a hub, kept in its folder so that a restarted hub takes the same ones.

    Args:
        folder (`Path`): Folder of the hub.
        user (`str`): Name of the user.
        orgs (`tuple`): Names of the organisations of the user.
        token (`str`, *optional*): The token that writes; by default the kept one, or a random one.
    """

    def __init__(self, folder: Path, user: str, orgs: tuple[str, ...] = (), token: str | None = None):
        path = folder / "tokens.json"
        kept = read_json(path) if path.is_file() else {}
        self.user, self.orgs = user, orgs
        self.token = token or kept.get("write") or _random_token()
        self.read_token = kept.get("read") or _random_token()
        write_json(path, {"write": self.token, "read": self.read_token})

    def authenticate(self, header: str | None) -> Account | None:
        """The account behind an `Authorization` header, `None` without one.

        Raises:
            HubError: With status 401 if the token is not one of this hub's.
        """
        if header is None:
            return None
        scheme, _, token = header.partition(" ")
        for known, role in ((self.token, "write"), (self.read_token, "read")):
            if scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), known.encode()):
                return Account(self.user, self.orgs, role)
        raise HubError(401, "Invalid credentials in Authorization header")

    def describe(self, account: Account) -> dict[str, Any]:
        """The answer to whoami."""
        orgs = [
            {"type": "org", "id": name, "name": name, "fullname": name, "roleInOrg": "admin", "isEnterprise": False}
            for name in account.orgs
        ]
        return {
            "type": "user",
            "id": account.user,
            "name": account.user,
            "fullname": account.user,
            "email": None,
            "emailVerified": True,
            "canPay": False,
            "isPro": False,
            "avatarUrl": "",
            "orgs": orgs,
            "auth": {
                "type": "access_token",
                "accessToken": {"displayName": f"local hub, {account.role}", "role": account.role},
            },
        }


def _random_token() -> str:
    return f"local_{secrets.token_hex(16)}"
