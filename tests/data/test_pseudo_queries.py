import pytest

from hf_matryoshka.data.pseudo_queries import pseudo_queries
from hf_matryoshka.data.retrieval import RetrievalDataset
from hf_matryoshka.data.sentences import split_sentences


LONG = "This sentence number {} is long enough to be drawn as a query."


def corpus(titles, texts):
    ids = [f"d{i}" for i in range(len(titles))]
    return RetrievalDataset("toy", ids, titles, texts, [], [])


@pytest.fixture
def dataset():
    body = " ".join(LONG.format(i) for i in range(9))
    return corpus(["First  title", "", "Third"], [body, "Too short. " + "X" * 500 + ".", body + " Tiny."])


def test_titles_and_sentences_with_their_owners(dataset):
    texts, owners = pseudo_queries(dataset)
    assert owners == [0] * 5 + [2] * 5
    assert (texts[0], texts[5]) == ("First title", "Third")
    for text, owner in zip(texts, owners, strict=True):
        assert text in " ".join(dataset.documents()[owner].split())
    assert len(set(texts[1:5])) == 4
    assert texts[1:5] == sorted(texts[1:5])


def test_the_seed_decides(dataset):
    assert pseudo_queries(dataset, seed=1) == pseudo_queries(dataset, seed=1)
    assert pseudo_queries(dataset, seed=1) != pseudo_queries(dataset, seed=2)


def test_options(dataset):
    texts, owners = pseudo_queries(dataset, titles=False, sentences_per_document=1)
    assert owners == [0, 2]
    assert all(text.startswith("This sentence") for text in texts)
    assert pseudo_queries(dataset, sentences_per_document=0)[0] == ["First title", "Third"]
    texts, _ = pseudo_queries(dataset, titles=False, min_characters=1, max_characters=10)
    assert texts == ["Too short.", "Tiny."]


def test_a_repeated_sentence_is_one_query():
    texts, _ = pseudo_queries(corpus([LONG.format(1)], [" ".join([LONG.format(1), LONG.format(2)] * 3)]))
    assert texts == [LONG.format(1), LONG.format(2)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sentences_per_document": -1}, "sentences_per_document must be 0 or more, got -1"),
        ({"min_characters": 50, "max_characters": 40}, r"between 1 and max_characters \(40\), got 50"),
        ({"min_characters": 0}, "min_characters must lie between 1"),
        (
            {"titles": False, "min_characters": 390},
            "no document of 'toy' has a sentence of 390 to 400 characters",
        ),
    ],
)
def test_bad_options_are_refused(dataset, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        pseudo_queries(dataset, **options)


def test_nothing_to_take_is_said():
    with pytest.raises(ValueError, match="no document of 'toy' has a title or a sentence of 30 to 400 characters"):
        pseudo_queries(corpus([""], ["Short."]))


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One.  Two!\nThree? Four", ["One.", "Two!", "Three?", "Four"]),
        (
            "See Smith et al. We did. Dr. House (Fig. 2) knew.",
            ["See Smith et al. We did.", "Dr. House (Fig. 2) knew."],
        ),
        ("By J. Doe, e.g. A or 3.5 mg.", ["By J. Doe, e.g. A or 3.5 mg."]),
        ('He said "Stop." Then (he left.) Nothing.', ['He said "Stop."', "Then (he left.)", "Nothing."]),
        ("version 2.0. the end", ["version 2.0. the end"]),
        ("   ", []),
    ],
)
def test_split_sentences(text, sentences):
    assert split_sentences(text) == sentences
