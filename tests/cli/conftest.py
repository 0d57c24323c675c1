"""Fixtures of the command-line tests."""

import json
import sys

import pytest

from hf_matryoshka.data.beir import save_beir
from hf_matryoshka.data.retrieval import RetrievalDataset

from .json_documents import DOCUMENTS, check_names


ANIMALS = "cat dog bird fish".split()
PLACES = "river city cell gene".split()
THINGS = "drug protein".split()


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command line; returns exit status, standard output and standard error."""

    from hf_matryoshka.cli import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["hf-matryoshka", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code or 0
        output = capsys.readouterr()
        if "--json" in arguments and status == 0:
            words = next(words for words in DOCUMENTS if words == arguments[: len(words)])
            check_names(json.loads(output.out), DOCUMENTS[words])
        return status, output.out, output.err

    return run


@pytest.fixture(scope="module")
def beir(tmp_path_factory):
    """A folder with 32 documents and a query for each."""
    combinations = [(a, p, t) for a in ANIMALS for p in PLACES for t in THINGS]
    ids = [f"d{row}" for row in range(len(combinations))]
    queries = [f"q{row}" for row in range(len(combinations))]
    qrels = {
        "train": {query: {document: 1} for query, document in zip(queries[:16], ids[:16], strict=True)},
        "test": {query: {document: 1} for query, document in zip(queries[12:], ids[12:], strict=True)},
    }
    dataset = RetrievalDataset(
        name="animals",
        corpus_ids=ids,
        titles=[f"The {a} of the {p}" for a, p, _ in combinations],
        texts=[f"A small {a} lives in the large {p}. It treats and causes the {t}." for a, p, t in combinations],
        query_ids=queries,
        queries=[f"which {t} treats the {a} in a {p}" for a, p, t in combinations],
        qrels=qrels,
    )
    folder = tmp_path_factory.mktemp("data") / "animals"
    save_beir(dataset, folder)
    return folder
