"""What the code that an export brings along may import; it is read and never run."""

import ast
import json
import logging
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from .. import modeling


logger = logging.getLogger(__name__)

# By package, the files that may import it; the standard library may be imported by all. A pattern is of file names.
ALLOWED = {
    "torch": "*",  # what every model computes with
    "transformers": "*",  # the classes that models and configs extend; it is what loads the code
    "huggingface_hub": "*",  # strict configs, and shards that are fetched one by one; transformers needs it
    "safetensors": "*",  # weights of one level; transformers needs it
    "sentence_transformers": "st_*.py",  # modules of sentence-transformers, which is what loads them
    "numpy": "mamba_onnx_stream.py",  # the runner of streaming graphs, which works without torch
}
# By package, the files that may load it by name, where it is installed: they work, or say what is missing, without.
OPTIONAL = {
    "onnxruntime": "*_onnx*.py",  # runs the graphs of an ONNX export
    "mamba_ssm": "mamba_kernels.py",  # kernels for CUDA, in place of torch's own operations
}
_IMPORTERS = ("import_module", "__import__")


class _Import(NamedTuple):
    """An import: the name as it is written, with a dot for each step of a relative one; `None` is only known at run
    time."""

    name: str | None
    line: int
    by_name: bool = False


def check_imports(folder: Path) -> None:
    """Raise unless the code of this package in the folder of an export imports only what whoever loads it has anyway.

    Code of a base model may need more, as it did before: each such package is a warning. This shows what the code
    depends on, and that it fits together. It keeps nobody who hides an import from running it: who loads code trusts
    it.

    Args:
        folder (`Path`): The folder; `.py` files of its sub-folders are read, too.

    Raises:
        ValueError: If a file of this package imports another package, or any a file that is not beside it, or is no
            Python; the message names both.
    """
    modules, own = _module_files(folder), _own_files()
    for file in sorted(folder.rglob("*.py")):
        where = f"the export {folder.name} brings the file {file.relative_to(folder).as_posix()}, which"
        try:
            imports = _imports(file.read_bytes())
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"{where} is no Python that can be read: {error}; it was not written") from error
        for one in imports:
            if one.name is None:
                if file.name not in own:
                    continue
                raise ValueError(
                    f"{where} imports a module in line {one.line} whose name only a run would tell; name it there; "
                    "it was not written"
                )
            if one.name.startswith("."):
                if not _is_beside(file, one.name):
                    raise ValueError(
                        f"{where} imports {one.name} in line {one.line}, but no such file lies beside it; it was not "
                        "written"
                    )
            elif not _is_allowed(one, file.name, is_module=file.name in modules):
                if file.name not in own:
                    logger.warning("%s imports %s in line %d: who loads it needs that", where, one.name, one.line)
                    continue
                raise ValueError(
                    f"{where} imports {one.name} in line {one.line}; code in an export may import torch, "
                    "transformers, huggingface_hub, safetensors, the standard library and, in a module of "
                    "sentence-transformers, that; it was not written"
                )


def _own_files() -> set[str]:
    """Names of the files that this package brings, also those of architectures that others add to it."""
    return {"mamba_onnx_stream.py"} | {file.name for path in modeling.__path__ for file in Path(path).glob("*.py")}


@lru_cache(maxsize=256)  # the repos of a family bring the same files
def _imports(source: bytes) -> tuple[_Import, ...]:
    """All imports of a file, also those inside of functions and conditions."""
    return tuple(_walk(list(ast.walk(ast.parse(source)))))


def _walk(nodes: list[ast.AST]) -> Iterator[_Import]:
    # `from importlib import import_module as load`.
    renamed = {
        alias.asname
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name in _IMPORTERS and alias.asname
    }
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (_Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is None:
            yield from (_Import("." * node.level + alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield _Import("." * node.level + str(node.module), node.lineno)
        elif isinstance(node, ast.Call) and _called(node) in {*_IMPORTERS, *renamed}:
            given = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "name")]
            literal = given[0].value if given and isinstance(given[0], ast.Constant) else None
            yield _Import(literal if isinstance(literal, str) else None, node.lineno, by_name=True)


def _called(node: ast.Call) -> str | None:
    """The last part of the name of what is called."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else None


def _is_beside(file: Path, name: str) -> bool:
    """Whether `.sibling` is a file: loaders look in the folder of a file and in no other."""
    sibling = name.removeprefix(".")
    return sibling.isidentifier() and file.with_name(f"{sibling}.py").is_file()


def _is_allowed(one: _Import, file_name: str, is_module: bool) -> bool:
    package = str(one.name).partition(".")[0]
    if package in sys.stdlib_module_names:
        return True
    if package == "sentence_transformers" and is_module:
        return True
    patterns = ALLOWED | OPTIONAL if one.by_name else ALLOWED
    return package in patterns and fnmatch(file_name, patterns[package])


def _module_files(folder: Path) -> set[str]:
    """Names of the files in which sentence-transformers looks for the modules of a repo."""
    path = folder / "modules.json"
    modules = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return {f"{module['type'].rpartition('.')[0].rpartition('.')[2]}.py" for module in modules}
