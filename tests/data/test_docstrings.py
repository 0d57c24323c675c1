import sys
import sysconfig
import time

import pytest

from hf_matryoshka.data import docstrings
from hf_matryoshka.data.docstrings import documentation_corpus, query_and_document


REST = "The result is returned as a list of numbers, one for each of the items that were given to it."


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A site-packages folder with one small package; importing the package would fail the test."""
    package = tmp_path / "mypackage"
    (package / "tests").mkdir(parents=True)
    topics = "apples bears clouds doors eagles flames grapes horses islands jewels kites lemons mice nails".split()
    functions = [
        f'def f{i}():\n    """Computes all the {t} at once.\n\n    {t} {REST}"""\n' for i, t in enumerate(topics)
    ]
    copies = (
        'class Copy:\n    """Computes all the apples at once.\n\n    '
        + "Other words that are new here. " * 5
        + '"""\n'
    )
    same_text = 'def same():\n    """Tells about something quite different.\n\n    Apples ' + REST + '"""\n'
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n" + "".join(functions) + copies + same_text)
    hidden = f'def hidden():\n    """Belongs to the tests of the package.\n\n    Hidden {REST}"""\n'
    (package / "tests" / "helper.py").write_text(hidden)
    (package / "broken.py").write_text(f'def broken(:\n    """Belongs to another Python version.\n\n    {REST}"""\n')
    (package / "nul.py").write_bytes(b'"""\0"""')
    method = (
        f'class A:\n    async def method(self):\n        """Waits until all is done.\n\n        Waiting {REST}"""\n'
    )
    (tmp_path / "single.py").write_text(method)
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"purelib": str(tmp_path), "platlib": str(tmp_path)})
    return tmp_path


def test_small_site(site):
    corpus = documentation_corpus()
    names = set(corpus.corpus_ids)
    assert names - {"mypackage.f0", "mypackage.Copy", "mypackage.same", "single.A.method"} == {
        f"mypackage.f{i}" for i in range(1, 14)
    }
    # Of the three that share a query or a document, the first one read stays.
    assert names & {"mypackage.f0", "mypackage.Copy", "mypackage.same"} == {"mypackage.f0"}
    position = corpus.corpus_ids.index("single.A.method")
    assert corpus.queries[position] == "Waits until all is done."
    assert corpus.texts[position] == f"Waiting {REST}"
    assert corpus.query_ids[position] == "q:single.A.method"
    assert corpus.titles == [""] * 15


def test_every_query_has_its_document_and_splits_share_none(site):
    qrels = documentation_corpus().qrels
    assert {split: len(judged) for split, judged in qrels.items()} == {"train": 9, "validation": 2, "test": 4}
    pairs = [pair for judged in qrels.values() for pair in judged.items()]
    assert len({query for query, _ in pairs}) == len({next(iter(d)) for _, d in pairs}) == 15
    assert all(grades == {query.removeprefix("q:"): 1} for query, grades in pairs)


def test_packages_and_limit(site):
    assert all(name.startswith("mypackage.") for name in documentation_corpus(packages=["mypackage"]).corpus_ids)
    assert len(documentation_corpus(max_documents=12).corpus_ids) == 12
    with pytest.raises(ValueError, match="no package 'nonesuch' is installed in .*; give the names that you import"):
        documentation_corpus(packages=["mypackage", "nonesuch"])
    with pytest.raises(ValueError, match="only 1 usable docstrings in single, at least 10 are needed"):
        documentation_corpus(packages=["single"])
    with pytest.raises(ValueError, match="max_documents must be at least 10, got 9"):
        documentation_corpus(max_documents=9)


def test_the_seed_decides(site):
    assert documentation_corpus(seed=1) == documentation_corpus(seed=1)
    assert documentation_corpus(seed=1).qrels != documentation_corpus(seed=2).qrels
    # Also which files are read when not all are needed.
    assert {"single.A.method" in documentation_corpus(12, seed).corpus_ids for seed in range(10)} == {True, False}


def test_markup_is_removed():
    text = f"""Builds a [`Thing`] from :class:`~pkg.Part` and ``code``, see [docs](https://x.y/z).

    Notes
    -----
    .. note:: **Bold** words. {REST}

    >>> thing = build()
    ... more

    ```python
    secret()
    ```
    """
    query, document = query_and_document(
        docstrings.ast.get_docstring(docstrings.ast.parse(f"def f():\n    r'''{text}'''").body[0])
    )
    assert query == "Builds a Thing from pkg.Part and code, see docs."
    assert document == f"Notes Bold words. {REST}"


def test_documents_are_cut_at_a_word():
    _, document = query_and_document("Computes the sum of things.\n\n" + "fifteen " * 400)
    assert 890 < len(document) <= 900
    assert set(document.split()) == {"fifteen"}


@pytest.mark.parametrize(
    "docstring",
    [
        f"Short.\n\n{REST}",
        f"Threewordsarenot enough still.\n\n{REST}",
        "Computes the sum of things.\n\nToo short.",
        f"name (`str`): the name of it all.\n\n{REST}",
        "Computes the sum of things.\n\n" + "1 2 3 = 4 | " * 30,
        "Computes " + "very " * 80 + f"much.\n\n{REST}",
        "",
        "```\nonly code\n```",
    ],
)
def test_what_is_no_pair_is_left_out(docstring):
    assert query_and_document(docstring) is None


def test_the_installed_packages_give_thousands_of_pairs():
    loaded = set(sys.modules)
    start = time.process_time()
    corpus = documentation_corpus(max_documents=2000)
    seconds = time.process_time() - start
    assert len(corpus.corpus_ids) == len(corpus.queries) == 2000
    assert seconds < 10  # about 2.5 on an idle core
    assert len(set(corpus.queries)) == len(set(corpus.texts)) == 2000
    assert all(80 <= len(text) <= 900 for text in corpus.texts)
    assert len({name.split(".")[0] for name in corpus.corpus_ids}) > 20
    assert {split: len(judged) for split, judged in corpus.qrels.items()} == {
        "train": 1200,
        "validation": 200,
        "test": 600,
    }
    assert set(sys.modules) == loaded
