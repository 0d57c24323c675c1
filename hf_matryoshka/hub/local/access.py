"""Which repos a caller sees and where the caller may write."""

from typing import TYPE_CHECKING

from .accounts import Account
from .errors import HubError, repo_not_found
from .messages import Request
from .names import check_repo_id
from .repository import Repository


if TYPE_CHECKING:
    from .local_hub import LocalHub


def visible_repo(hub: "LocalHub", repo_type: str, repo_id: str, account: Account | None) -> Repository:
    """The repo, unless it is private and the caller has no token."""
    repo = hub.repositories.find(repo_type, repo_id)
    if repo is None or (account is None and repo.private):
        raise repo_not_found(anonymous=account is None)
    return repo


def named_repo(hub: "LocalHub", request: Request) -> Repository:
    """The repo that the request's path names."""
    repo_type = (request.names.get("types") or "models").removesuffix("s")
    return visible_repo(hub, repo_type, request.names["repo"], request.account)


def own_repo_id(account: Account, name: object, namespace: object = None) -> str:
    """`namespace/name`, with the caller's own name for no namespace.

    Raises:
        HubError: With status 400 if the Hub would not take it, 403 if it is not the caller's namespace.
    """
    repo_id = check_repo_id(name)
    if namespace is not None or "/" not in repo_id:
        repo_id = check_repo_id(f"{account.user if namespace is None else namespace}/{repo_id}")
    check_owner(account, repo_id.split("/")[0])
    return repo_id


def check_owner(account: Account, namespace: str) -> None:
    if not account.owns(namespace):
        owned = ", ".join((account.user, *account.orgs))
        raise HubError(403, f'You don\'t have the rights to write under the namespace "{namespace}"; yours: {owned}')
