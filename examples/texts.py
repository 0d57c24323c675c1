"""Texts that every machine has, for the other examples: the documentation of the installed Python packages.

    python examples/texts.py outputs/examples

leaves `docstrings/`, a retrieval data set in BEIR format, `docstrings.jsonl`, its documents, and such a file for each
of four packages. Nothing is downloaded, and the packages are read, not imported.
"""

import argparse
import json
from pathlib import Path

from hf_matryoshka.data.beir import save_beir
from hf_matryoshka.data.docstrings import documentation_corpus


PACKAGES = ("torch", "transformers", "scipy", "sklearn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a new one")
    parser.add_argument("--max-documents", type=int, default=4000, help="of all packages together, and of each")
    arguments = parser.parse_args()
    if arguments.folder.exists():
        parser.error(f"{arguments.folder} exists already; delete it or name another folder")

    dataset = documentation_corpus(arguments.max_documents)
    save_beir(dataset, arguments.folder / "docstrings")
    write_texts(arguments.folder / "docstrings.jsonl", list(dataset.documents()))
    for package in PACKAGES:
        texts = list(documentation_corpus(arguments.max_documents, packages=[package]).documents())
        write_texts(arguments.folder / f"{package}.jsonl", texts)


def write_texts(path: Path, texts: list[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    print(f"{path}: {len(texts)} texts")


if __name__ == "__main__":
    main()
