import gzip
import json

import pytest

from hf_matryoshka.data.beir import save_beir
from hf_matryoshka.data.retrieval import RetrievalDataset
from hf_matryoshka.data.texts import read_texts


def test_lines_records_and_folders(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n  two \n")
    assert read_texts(tmp_path / "a.txt") == ["one", "  two "]
    (tmp_path / "a.jsonl").write_text('{"body": "one", "text": "x"}\n"two"\n')
    assert read_texts(tmp_path / "a.jsonl", field="body") == ["one", "two"]
    save_beir(
        RetrievalDataset("x", ["d"], ["Title"], ["text"], ["q"], ["query"], {"test": {"q": {"d": 1}}}),
        tmp_path / "beir",
    )
    assert read_texts(tmp_path / "beir") == ["Title text"]


def test_tables_are_read_by_name_or_number_of_a_column(tmp_path):
    (tmp_path / "a.csv").write_text('score,text\n1,"one, two"\n2,\n3,"three\nlines"\n')
    assert read_texts(tmp_path / "a.csv") == ["one, two", "three\nlines"]
    (tmp_path / "b.tsv").write_text('a "quote\tb\nc\td\n')
    assert read_texts(tmp_path / "b.tsv", field="1") == ["b", "d"]
    with gzip.open(tmp_path / "c.csv.gz", "wt") as file:
        file.write("x,y\n")
    assert read_texts(tmp_path / "c.csv.gz", field="0") == ["x"]
    with pytest.raises(ValueError, match="line 1 of .* has 2 columns, so no column 2"):
        read_texts(tmp_path / "c.csv.gz", field="2")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pdf", "x", "is neither .txt, .jsonl, .csv nor .tsv"),
        ("a.csv", "title,body\na,b\n", "has no column 'text' in its first row \\(title, body\\)"),
        ("a.txt", "\n", "holds no text"),
        ("a.jsonl", "{", "line 1 of .* is no JSON"),
        ("a.jsonl", json.dumps({"text": 3}), "line 1 of .* has no text in the field 'text'"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_texts(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; give a .txt, .jsonl, .csv or .tsv file"):
        read_texts(tmp_path / "none.txt")
