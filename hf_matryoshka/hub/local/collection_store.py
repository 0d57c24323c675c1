"""Collections on disk, a document each."""

import re
import secrets
import threading
from pathlib import Path
from typing import Any

from .errors import HubError
from .objects import read_json, write_json
from .repository import now


_SLUG = re.compile(r"(?P<owner>[A-Za-z0-9_.-]+)/(?:[a-z0-9-]*-)?(?P<key>[0-9a-f]{24})")


class Collections:
    """The collections below a folder. All methods take and give documents with the keys slug, title, description,
    owner, private, position, theme, lastUpdated and items (`_id`, type, id, note).

    Args:
        folder (`Path`): Where they lie.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock = threading.RLock()

    def listing(self) -> list[dict[str, Any]]:
        return [read_json(path) for path in sorted(self.folder.glob("[0-9a-f]*.json"))]

    def find(self, slug: str) -> dict[str, Any] | None:
        """The collection; only the key at the end of its slug and its owner count."""
        match = _SLUG.fullmatch(slug)
        path = self.folder / f"{match['key']}.json" if match else None
        if path is None or not path.is_file():
            return None
        document = read_json(path)
        return document if document["owner"] == match["owner"] else None

    def create(self, owner: str, settings: dict[str, Any]) -> dict[str, Any]:
        """A new collection.

        Raises:
            HubError: With status 409 and the `slug` if the owner has one of this title.
        """
        with self._lock:
            for old in self.listing():
                if (old["owner"], old["title"]) == (owner, settings["title"]):
                    raise HubError(409, f"Collection already exists: {old['slug']}", body={"slug": old["slug"]})
            name = re.sub(r"[^a-z0-9]+", "-", settings["title"].lower()).strip("-")[:60].strip("-")
            slug = f"{owner}/{'-'.join(filter(None, (name, secrets.token_hex(12))))}"
            defaults = {"description": None, "private": False, "position": 0, "theme": "orange", "items": []}
            return self._write({**defaults, **settings, "slug": slug, "owner": owner})

    def update(self, document: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            return self._write({**self._fresh(document), **settings})

    def delete(self, document: dict[str, Any]) -> None:
        with self._lock:
            self._path(document).unlink()

    def add_item(self, document: dict[str, Any], kind: str, name: str, note: str | None) -> dict[str, Any]:
        """Append a repo.

        Raises:
            HubError: With status 409 if the collection holds it.
        """
        with self._lock:
            document = self._fresh(document)
            if any((item["type"], item["id"]) == (kind, name) for item in document["items"]):
                raise HubError(409, f"{kind} {name} is in the collection already")
            item = {"_id": secrets.token_hex(12), "type": kind, "id": name, "note": note}
            return self._write({**document, "items": [*document["items"], item]})

    def update_item(self, document: dict[str, Any], key: str, note: str | None, position: int | None) -> None:
        with self._lock:
            document = self._fresh(document)
            item = _item(document, key)
            if note is not None:
                item["note"] = note
            if position is not None:
                document["items"].remove(item)
                document["items"].insert(max(position, 0), item)
            self._write(document)

    def delete_item(self, document: dict[str, Any], key: str) -> None:
        with self._lock:
            document = self._fresh(document)
            document["items"].remove(_item(document, key))
            self._write(document)

    def forget(self, kind: str, name: str) -> None:
        """Take a deleted repo out of every collection."""
        with self._lock:
            for document in self.listing():
                kept = [item for item in document["items"] if (item["type"], item["id"]) != (kind, name)]
                if len(kept) < len(document["items"]):
                    self._write({**document, "items": kept})

    def rename(self, kind: str, name: str, new: str) -> None:
        """Follow a moved repo in every collection."""
        with self._lock:
            for document in self.listing():
                moved = [item for item in document["items"] if (item["type"], item["id"]) == (kind, name)]
                for item in moved:
                    item["id"] = new
                if moved:
                    self._write(document)

    def _path(self, document: dict[str, Any]) -> Path:
        return self.folder / f"{document['slug'][-24:]}.json"

    def _fresh(self, document: dict[str, Any]) -> dict[str, Any]:
        """The document as it is now, under the lock."""
        path = self._path(document)
        if not path.is_file():
            raise HubError(404, "Collection not found")
        return read_json(path)

    def _write(self, document: dict[str, Any]) -> dict[str, Any]:
        document = {**document, "lastUpdated": now()}
        write_json(self._path(document), document)
        return document


def _item(document: dict[str, Any], key: str) -> dict[str, Any]:
    for item in document["items"]:
        if item["_id"] == key:
            return item
    raise HubError(404, f"The collection {document['slug']} has no item {key}")
