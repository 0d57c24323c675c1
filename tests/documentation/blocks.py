"""The code blocks of README.md, docs/, examples/README.md and CONTRIBUTING.md."""

import ast
import importlib
import re
from dataclasses import dataclass
from pathlib import Path


ROOT = Path(__file__).resolve().parents[2]
SITE_PAGES = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", *SITE_PAGES, ROOT / "examples" / "README.md", ROOT / "CONTRIBUTING.md"]
# An HTML comment on the line before a block, or before the empty line before it:
#   <!-- not run: why -->         a Python block that is only parsed
#   <!-- without the package -->  a Python block that runs in a process that cannot import hf_matryoshka
FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^>]*?) -->\n\n?)?(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)
SNIPPET = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)
INLINE = re.compile(r"(?<!`)`(hf-matryoshka [^`]+)`(?!`)")
MARKS = ("not run: ", "without the package")


@dataclass(frozen=True)
class Block:
    """A code block.

    Args:
        page (`str`): The file, relative to the checkout.
        line (`int`): Line of the page that the block's first line is on.
        language (`str`): As the fence says.
        mark (`str`): Of the comment before it, else empty.
        text (`str`): The code, with the files that it includes.
    """

    page: str
    line: int
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        """Whether it is run together with the other blocks of its page."""
        return self.language == "python" and not self.mark


def read_blocks(path: Path) -> list[Block]:
    """The blocks of a page.

    Raises:
        ValueError: If the comment before one is no mark.
    """
    text = path.read_text(encoding="utf-8")
    page, found = path.relative_to(ROOT).as_posix(), []
    for match in FENCE.finditer(text):
        line = text[: match.start("text")].count("\n") + 1
        mark = match["mark"] or ""
        if mark and not mark.startswith(MARKS):
            raise ValueError(f"{page}:{line}: {mark!r} before a block is no mark; it may be {' or '.join(MARKS)}")
        code = SNIPPET.sub(lambda name: (ROOT / name[1]).read_text(encoding="utf-8"), match["text"])
        found.append(Block(page, line, match["language"], mark, code))
    return found


BLOCKS = [block for path in PAGES for block in read_blocks(path)]


def inline_commands(path: Path) -> list[str]:
    """Commands inside of sentences and tables."""
    outside = FENCE.sub("", path.read_text(encoding="utf-8"))
    return [" ".join(found.split()) for found in INLINE.findall(outside)]


def command_lines(text: str) -> list[str]:
    """The `hf-matryoshka` and `make` lines of a shell block or of a YAML file's comments, continued ones joined."""
    lines = re.sub(r"\\\n\s*#?", " ", text).splitlines()
    stripped = (line.lstrip("# ") for line in lines)
    return [line for line in stripped if line.startswith(("hf-matryoshka ", "make "))]


def check_imports(tree: ast.Module) -> None:
    """Import what a block imports of this package.

    Raises:
        ImportError: If there is no such module, or it has no such name.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in (alias.name for alias in node.names if alias.name.split(".")[0] == "hf_matryoshka"):
                importlib.import_module(name)
        elif isinstance(node, ast.ImportFrom):
            # Files with relative imports are those of a folder like modeling/.
            module = f"hf_matryoshka.modeling.{node.module}" if node.level else node.module
            if module.split(".")[0] != "hf_matryoshka" or is_example(module.split(".")[-1]):
                continue
            found = importlib.import_module(module)
            for alias in node.names:
                if not hasattr(found, alias.name):
                    raise ImportError(f"{module} has no {alias.name}")


def is_example(module: str) -> bool:
    """Whether it is one of the files that the documentation shows as a new architecture."""
    return (ROOT / "docs" / "examples" / f"{module}.py").is_file()
