import gzip
import json

import pytest

from hf_matryoshka.data.pairs import iter_pairs


def test_tables_and_records(tmp_path):
    (tmp_path / "a.tsv").write_text("one\ttwo\tthree\n\tx\ty\nfour\tfive\tsix\n")
    assert list(iter_pairs(tmp_path / "a.tsv", "0", "2")) == [("one", "three"), ("four", "six")]
    (tmp_path / "b.csv").write_text('query,id,answer\nwho,1,"he, she"\n')
    assert list(iter_pairs(tmp_path / "b.csv", "answer", "query")) == [("he, she", "who")]
    with gzip.open(tmp_path / "c.jsonl.gz", "wt") as file:
        file.write(json.dumps({"anchor": "a", "positive": "b", "other": 1}) + "\n")
    assert list(iter_pairs(tmp_path / "c.jsonl.gz", "anchor", "positive")) == [("a", "b")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "x", "a.txt is neither .jsonl, .csv nor .tsv"),
        ("a.csv", "title,body\na,b\n", "has no column '0' in its first row"),
        ("a.tsv", "a\n", "has no column"),
        ("a.jsonl", '"text"\n', "line 1 of .* is no JSON object with the fields '0' and 'body'"),
        ("a.jsonl", '{"0": "a"}\n', "line 1 of .* has no text in the field 'body'"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        list(iter_pairs(tmp_path / name, "0", "body"))


def test_missing_columns_and_files_are_named(tmp_path):
    (tmp_path / "a.tsv").write_text("a\tb\n")
    with pytest.raises(ValueError, match="line 1 of .* has 2 columns, so no column 2"):
        list(iter_pairs(tmp_path / "a.tsv", "2", "0"))
    with pytest.raises(FileNotFoundError, match="does not exist; give a .jsonl, .csv or .tsv file$"):
        list(iter_pairs(tmp_path / "none.tsv", "0", "1"))
