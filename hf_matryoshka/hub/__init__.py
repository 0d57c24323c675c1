"""A level -> a repo -> a family -> the Hub: exports, the gate that checks them, cards, and a hub to rehearse on."""

import importlib
from typing import Any


# public name -> module of this room that defines it; lazy, since the local hub must start without torch
_EXPORTS = {"Faults": "local.faults", "LocalHub": "local.local_hub"}


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
