"""Groups of tokens for each prefix length."""

import pytest

from hf_matryoshka.data.taxonomy import Taxonomy


VOCABULARY = {"a": 0, "b": 1, "e": 2, "A": 3, ".": 4, "<unk>": 5}
GROUPS = {
    4: {"letters": ["a", "b", "e", "A"], "symbols": ["."]},
    8: {"vowels": ["a", "e"], "b": ["b"], "upper": ["A"]},
}


def test_tokens_have_the_number_of_their_group():
    taxonomy = Taxonomy(GROUPS | {8: GROUPS[8] | {"symbols": ["."]}})
    assert taxonomy.widths == [4, 8]
    found = taxonomy.group_ids(VOCABULARY)
    # What no group names is one of its own.
    assert found[4].tolist() == [0, 0, 0, 0, 1, 2]
    assert found[8].tolist() == [0, 1, 0, 2, 3, 4]
    whole = Taxonomy({4: {"none": [], "all": list(VOCABULARY)}})
    assert whole.group_ids(VOCABULARY)[4].tolist() == [0] * 6


def test_a_file(tmp_path):
    path = tmp_path / "taxonomy.yaml"
    path.write_text('4:\n  letters: abeA\n  symbols: ["."]\nrefine: false\n8:\n  some: ["a", "."]\n  digits: [1]\n')
    taxonomy = Taxonomy.from_yaml(path)
    assert taxonomy.groups[4]["letters"] == ["a", "b", "e", "A"] and taxonomy.groups[8]["digits"] == ["1"]
    with pytest.raises(ValueError, match="token '1' of the taxonomy is not in the vocabulary"):
        taxonomy.group_ids(VOCABULARY)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({}, "a taxonomy needs groups of tokens"),
        ({4: {}}, "a taxonomy needs groups of tokens"),
        ({0: {"a": ["a"]}}, "prefix lengths are positive numbers, but 0 is none"),
        ({4: {"one": ["a"], "two": ["b", "a"]}}, "token 'a' is in two groups of prefix 4: one and two"),
        (
            {4: GROUPS[4], 8: {"mixed": ["a", "."]}},
            "group mixed of prefix 8 crosses groups of prefix 4: 'a' is in letters, '.' in symbols",
        ),
        ({4: GROUPS[4], 8: {"a": ["a"]}}, "tokens that no group of prefix 8 names would cross .* 'b' is in letters"),
    ],
)
def test_what_is_no_tree_is_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        Taxonomy(groups)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4: [", "is no YAML"),
        ("- 4", "must map prefix lengths to groups"),
        ("4: abc", "4 must map names of groups to their tokens"),
        ("4: {letters: 7}", "4 must map names of groups to their tokens"),
    ],
)
def test_bad_files_are_refused(text, message, tmp_path):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        Taxonomy.from_yaml(tmp_path / "bad.yaml")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Taxonomy.from_yaml(tmp_path / "none.yaml")
