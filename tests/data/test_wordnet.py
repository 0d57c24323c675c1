"""Groups of tokens cut from a tree of nouns."""

import gzip
import json
from pathlib import Path

import pytest

from hf_matryoshka.data.hierarchy_file import read_hierarchy
from hf_matryoshka.data.taxonomy import Taxonomy
from hf_matryoshka.data.wordnet import WordNetNouns, WordNetTaxonomy, whole_words


ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data" / "wordnet"
SYNSETS = (
    ("1n", ["entity"], []),
    ("2n", ["animal"], ["1n"]),
    ("3n", ["food"], ["1n"]),
    # Of `dog` the first meaning in the file has nothing below it, and its second hypernym does not count; of `bass`
    # both have nothing, and the second begins with it.
    ("4n", ["sausage", "dog"], ["3n", "2n"]),
    ("5n", ["dog", "hound"], ["2n"]),
    ("6n", ["puppy"], ["5n"]),
    ("11n", ["singer", "bass"], ["3n"]),
    ("7n", ["bass"], ["2n"]),
    ("8n", ["Paris"], ["1n"]),
    ("9n", ["in", "inch"], ["1n"]),
    ("10v", ["run", "dog"], []),
)
# Words as WordPiece has them.
TOKENS = "[UNK] dog puppies hounds Bass food sausages paris Paris in run ##hound x1".split()
VOCABULARY = {token: number for number, token in enumerate(TOKENS)}


def write(folder, synsets=SYNSETS):
    folder.mkdir(exist_ok=True)
    with gzip.open(folder / "synsets.jsonl.gz", "wt", encoding="utf-8") as file:
        for key, lemmas, hypernyms in synsets:
            file.write(json.dumps({"id": key, "lemmas": lemmas, "hypernyms": hypernyms, "gloss": ""}) + "\n")
    return folder


def test_words_have_the_group_of_their_hypernym_at_each_depth(tmp_path):
    taxonomy = WordNetTaxonomy(write(tmp_path / "wordnet"), {8: 2, 4: 1})
    assert taxonomy.widths == [4, 8]
    groups = taxonomy.taxonomy(VOCABULARY).groups
    assert groups[4] == {
        "animal 2n": ["dog", "puppies", "hounds", "Bass"],
        "food 3n": ["food", "sausages"],
        "Paris 8n": ["Paris"],
    }
    # A meaning that is less deep keeps its own synset.
    assert groups[8] == {
        "dog 5n": ["dog", "puppies", "hounds"],
        "bass 7n": ["Bass"],
        "food 3n": ["food"],
        "sausage 4n": ["sausages"],
        "Paris 8n": ["Paris"],
    }
    found = taxonomy.group_ids(VOCABULARY)
    # Names in lower case, short words, verbs, pieces and what is no word are a group of their own.
    rest = [VOCABULARY[token] for token in ("[UNK]", "paris", "in", "run", "##hound", "x1")]
    assert found[8].shape == (13,) and len(set(found[8][rest].tolist())) == 1 and (found[8] == found[8][0]).sum() == 6


def test_small_groups_join_the_hypernym_above(tmp_path):
    path = write(tmp_path / "wordnet")
    groups = WordNetTaxonomy(path, {4: 1, 8: 3}, min_tokens=2).taxonomy(VOCABULARY).groups
    assert groups[4]["entity 1n"] == groups[8]["entity 1n"] == ["Paris"]
    assert groups[8]["animal 2n"] == ["Bass"] and groups[8]["dog 5n"] == ["dog", "puppies", "hounds"]
    assert groups[8]["food 3n"] == ["food", "sausages"]
    every = WordNetTaxonomy(path, {4: 1}, min_tokens=99).taxonomy(VOCABULARY).groups[4]
    assert list(every) == ["entity 1n"]


def test_pieces_of_words_are_no_words():
    assert whole_words({"Ġdog": 1, "dog": 0, "Ġ": 2, "Ġan": 3, "Ġwell-": 4}) == {"Ġdog": "dog"}
    assert whole_words({"▁dog": 1, "hound": 0}) == {"▁dog": "dog"}
    assert list(whole_words({"hound": 1, "dog": 0, "##dog": 2})) == ["dog", "hound"]


def test_a_file_names_wordnet(tmp_path):
    path = tmp_path / "groups.yaml"
    folder = write(tmp_path / "wordnet")
    path.write_text(f"wordnet: {folder}\ndepths: {{4: 1, 8: 2}}\nmin_tokens: 2\n")
    read = read_hierarchy(path)
    expected = WordNetTaxonomy(folder, {4: 1, 8: 2}, 2).group_ids(VOCABULARY)
    assert {width: ids.tolist() for width, ids in read.group_ids(VOCABULARY).items()} == {
        width: ids.tolist() for width, ids in expected.items()
    }
    path.write_text("4: {some: abc}\n")
    assert isinstance(read_hierarchy(path), Taxonomy)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wordnet: none\ndepths: {4: 1}", "none does not exist; give a folder with synsets.jsonl.gz"),
        ("wordnet: HERE\ndepth: {4: 1}", "beside wordnet there are depths and min_tokens, but not 'depth'"),
        ("wordnet: HERE", "depths must map prefix lengths to depths of WordNet, all above 0, but is None"),
        ("wordnet: HERE\ndepths: {4: 0}", "depths must map prefix lengths to depths"),
        ("wordnet: HERE\ndepths: {4: 3, 8: 2}", "depths must not decrease with the prefix, but are {4: 3, 8: 2}"),
        ("wordnet: HERE\ndepths: {4: 1}\nmin_tokens: 0", "min_tokens must be at least 1, but is 0"),
    ],
)
def test_bad_files_are_refused(text, message, tmp_path):
    path = tmp_path / "groups.yaml"
    path.write_text(text.replace("HERE", str(write(tmp_path / "wordnet"))))
    with pytest.raises((ValueError, FileNotFoundError), match=f"taxonomy .*groups.yaml: .*{message}"):
        read_hierarchy(path)


@pytest.mark.parametrize(
    ("synsets", "message"),
    [
        ((("1v", ["run"], []),), "has no nouns"),
        ((("1n", [], []),), "line 1 of .* is no synset with id, lemmas and hypernyms"),
        ((("1n", ["a"], ["2n"]),), "hypernym 2n of synset 1n is not in"),
        ((("1n", ["a"], ["2n"]), ("2n", ["b"], ["1n"])), "hypernyms of synset 1n go round in a circle"),
    ],
)
def test_bad_synsets_are_refused(synsets, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        WordNetNouns(write(tmp_path / "wordnet", synsets))


def test_a_vocabulary_without_nouns_is_refused(tmp_path):
    with pytest.raises(ValueError, match="none of the 2 tokens is a word that is a noun of WordNet"):
        WordNetTaxonomy(write(tmp_path / "wordnet"), {4: 1}).group_ids({"a": 0, "b": 1})


@pytest.mark.skipif(not REAL.is_dir(), reason="WordNet is not at ../shared/data/wordnet")
def test_the_real_tree(monkeypatch):
    words = "dog wolf cats oak tulip hammer knife London Paris anger joy the quickly".split()
    vocabulary = {f"Ġ{word}": number for number, word in enumerate(words)}
    groups = WordNetTaxonomy(REAL, {4: 1, 8: 6, 16: 12}).group_ids(vocabulary)
    ids = {width: dict(zip(words, found.tolist(), strict=True)) for width, found in groups.items()}
    # Things and abstractions; below them animals, plants, tools, cities, feelings; and what is no noun.
    for one, other, apart in (("dog", "London", "anger"), ("oak", "hammer", "the"), ("the", "quickly", "joy")):
        assert ids[4][one] == ids[4][other] != ids[4][apart]
    for one, other, apart in (("dog", "cats", "oak"), ("oak", "tulip", "knife"), ("dog", "wolf", "hammer")):
        assert ids[8][one] == ids[8][other] != ids[8][apart]
    assert ids[16]["dog"] == ids[16]["wolf"] != ids[16]["cats"]
    monkeypatch.chdir(ROOT)
    found = read_hierarchy("configs/nouns.yaml")
    assert found.widths == [4, 8, 16, 32] and found.group_ids(vocabulary)[32].max() == 1
