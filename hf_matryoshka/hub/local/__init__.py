"""The Hugging Face Hub's HTTP API on loopback: repos, commits, LFS and collections, stored on disk.

It needs the standard library and PyYAML only, so that it starts at once and can run beside any version of the clients.
"""

from .faults import Faults
from .local_hub import LocalHub


__all__ = ["Faults", "LocalHub"]
