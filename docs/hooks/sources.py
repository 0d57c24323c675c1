"""Where mkdocstrings finds the package: in a checkout `modeling/` and `trainers/` lie beside it, not inside it."""

import shutil
import tempfile
import tomllib
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority


ROOT = Path(__file__).resolve().parents[2]
_made: list[str] = []


@event_priority(100)  # before mkdocstrings reads its options
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lays the package out as pip installs it, of links, and names the folder to the Python handler."""
    folder = Path(tempfile.mkdtemp(prefix="hf-matryoshka-docs-"))
    _made.append(str(folder))
    package = folder / "hf_matryoshka"
    package.mkdir()
    for path in (ROOT / "hf_matryoshka").iterdir():
        (package / path.name).symlink_to(path)
    with open(ROOT / "pyproject.toml", "rb") as file:
        places = tomllib.load(file)["tool"]["setuptools"]["package-dir"]
    for name, place in places.items():
        if "." in name:
            (folder / name.replace(".", "/")).symlink_to(ROOT / place)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(folder)]
    return config


def on_shutdown() -> None:
    """Removes the links."""
    while _made:
        shutil.rmtree(_made.pop())
