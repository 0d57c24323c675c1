"""A real retrieval corpus that every machine has: the documentation of the Python packages installed beside us."""

import ast
import random
import re
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from .retrieval import RetrievalDataset
from .sentences import split_sentences


MIN_DOCUMENTS = 10
MIN_DOCUMENT_CHARACTERS, MAX_DOCUMENT_CHARACTERS = 80, 900
MIN_QUERY_CHARACTERS, MAX_QUERY_CHARACTERS = 20, 300
SPLITS = {"train": 0.6, "validation": 0.1, "test": 0.3}

# Generated tables; they take long to parse and hold no prose.
_MAX_FILE_BYTES = 300_000
# Test suites and second copies of other packages; our own package, so that the way it is installed plays no part.
_SKIPPED_FOLDERS = {"test", "tests", "testing", "_vendor", "vendor", "__pycache__", "hf_matryoshka"}

_MARKUP = [
    (re.compile(r"^```.*?^```\s*$", re.DOTALL | re.MULTILINE), ""),  # fenced code
    (re.compile(r"^\s*(?:>>>|\.\.\.).*$", re.MULTILINE), ""),  # doctest input
    (re.compile(r"^\s*\.\. [\w:-]+::", re.MULTILINE), ""),  # reStructuredText directives
    (re.compile(r"^\s*[-=~^*+#|]{3,}\s*$", re.MULTILINE), ""),  # underlines of headings
    (re.compile(r":[\w:]+:`~?([^`<]*?)(?:\s*<[^`]*>)?`"), r"\1"),  # :class:`~pkg.Name`
    (re.compile(r"\[([^\]]+)\]\([^)\s]+\)"), r"\1"),  # [text](address)
    (re.compile(r"\[?`+([^`]*)`+_{0,2}\]?"), r"\1"),  # `code`, ``code``, [`Name`], `link`_
    (re.compile(r"\*\*([^*\n]+)\*\*"), r"\1"),
    (re.compile(r"</?[A-Za-z][^<>\n]*>"), ""),
    (re.compile(r"::(?=\s|$)"), ":"),
]


def documentation_corpus(
    max_documents: int = 4000, seed: int = 0, packages: Sequence[str] | None = None
) -> RetrievalDataset:
    """Makes a retrieval data set of the docstrings of installed packages.

    The first sentence of a docstring is the query, the rest is the document. The source files are read, never
    imported. The same packages and the same seed give the same data set.

    Args:
        max_documents (`int`, *optional*, defaults to 4000):
            Stop after so many documents.
        seed (`int`, *optional*, defaults to 0):
            Seed of the order in which files are read and of the splits.
        packages (`Sequence[str]`, *optional*):
            Import names of the packages to read; all that are installed by default.

    Returns:
        [`RetrievalDataset`]: one relevant document a query, in the splits `train` (60%), `validation` (10%) and
        `test` (30%), which therefore share no document.

    Raises:
        ValueError: if a package is not installed, or if there are fewer than 10 documents.
    """
    if max_documents < MIN_DOCUMENTS:
        raise ValueError(f"max_documents must be at least {MIN_DOCUMENTS}, got {max_documents}")
    files = _source_files(packages)
    rng = random.Random(seed)
    rng.shuffle(files)

    pairs: dict[str, tuple[str, str]] = {}
    seen: set[str] = set()
    for name, docstring in _docstrings(files):
        pair = query_and_document(docstring)
        if pair is None or name in pairs:
            continue
        query, document = pair
        # Letters only, and the start of the document only: copies with another class name or number are copies.
        keys = {"q" + _letters(query), "d" + _letters(document)[:120]}
        if seen.isdisjoint(keys):
            seen |= keys
            pairs[name] = pair
            if len(pairs) == max_documents:
                break
    if len(pairs) < MIN_DOCUMENTS:
        where = "the installed packages" if packages is None else ", ".join(packages)
        raise ValueError(
            f"only {len(pairs)} usable docstrings in {where}, at least {MIN_DOCUMENTS} are needed; name more packages"
        )

    names = list(pairs)
    rng.shuffle(names)
    qrels, start = {}, 0
    for split, share in SPLITS.items():
        stop = len(names) if split == "test" else start + round(share * len(names))
        qrels[split] = {f"q:{name}": {name: 1} for name in names[start:stop]}
        start = stop
    return RetrievalDataset(
        name="python-docs",
        corpus_ids=list(pairs),
        titles=[""] * len(pairs),
        texts=[document for _, document in pairs.values()],
        query_ids=[f"q:{name}" for name in pairs],
        queries=[query for query, _ in pairs.values()],
        qrels=qrels,
    )


def query_and_document(docstring: str) -> tuple[str, str] | None:
    """Divides a docstring into its first sentence and the rest, both without markup.

    Args:
        docstring (`str`):
            The docstring, with its indentation removed.

    Returns:
        `tuple[str, str]`, *optional*: query and document, or `None` where either is too short or is not prose.
    """
    for pattern, replacement in _MARKUP:
        docstring = pattern.sub(replacement, docstring)
    first, _, others = docstring.strip().partition("\n\n")
    sentences = split_sentences(first)
    if not sentences:
        return None
    query = sentences[0]
    document = " ".join([*sentences[1:], *others.split()])
    if len(document) > MAX_DOCUMENT_CHARACTERS:
        document = document[:MAX_DOCUMENT_CHARACTERS].rsplit(" ", 1)[0]
    is_query = MIN_QUERY_CHARACTERS <= len(query) <= MAX_QUERY_CHARACTERS and len(query.split()) >= 4
    is_query = is_query and query[0].isupper()  # otherwise it is most often the name of a parameter
    if not is_query or len(document) < MIN_DOCUMENT_CHARACTERS or not (_is_prose(query) and _is_prose(document)):
        return None
    return query, document


def _letters(text: str) -> str:
    return re.sub(r"[^a-z]+", "", text.lower())


def _is_prose(text: str) -> bool:
    return len(_letters(text)) >= 0.6 * len(text)


def _source_files(packages: Sequence[str] | None) -> list[tuple[str, Path]]:
    """Dotted module name and path of every source file, in one order on every machine."""
    roots = [Path(path) for path in dict.fromkeys(sysconfig.get_paths()[key] for key in ("purelib", "platlib"))]
    if packages is None:
        entries = [entry for root in roots for entry in root.iterdir()]
    else:
        entries = []
        for package in packages:
            found = [path for root in roots for path in (root / package, root / f"{package}.py") if path.exists()]
            if not found:
                raise ValueError(f"no package {package!r} is installed in {roots[0]}; give the names that you import")
            entries += found
    files = {}
    for entry in entries:
        for path in entry.rglob("*.py") if entry.is_dir() else [entry]:
            if path.suffix != ".py":
                continue
            parts = path.relative_to(entry.parent).with_suffix("").parts
            if _SKIPPED_FOLDERS.isdisjoint(parts) and not parts[-1].startswith("test_"):
                files[".".join(parts).removesuffix(".__init__")] = path
    return sorted(files.items())


def _docstrings(files: list[tuple[str, Path]]) -> Iterator[tuple[str, str]]:
    """Dotted name and docstring of every class and function of the files."""
    for module, path in files:
        source = path.read_bytes()
        if len(source) > _MAX_FILE_BYTES or (b'"""' not in source and b"'''" not in source):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a strange escape in somebody's source is not the user's concern
                tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):  # written for another Python, or not a real source file
            continue
        yield from _docstrings_in(tree, module)


def _docstrings_in(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            child_name = f"{name}.{child.name}"
            docstring = ast.get_docstring(child)
            if docstring:
                yield child_name, docstring
            yield from _docstrings_in(child, child_name)
        elif isinstance(child, (ast.If, ast.Try, ast.With)):
            yield from _docstrings_in(child, name)
