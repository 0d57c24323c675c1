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


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "x", "is neither .txt nor .jsonl"),
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
    with pytest.raises(FileNotFoundError, match="does not exist; give a .txt or .jsonl file"):
        read_texts(tmp_path / "none.txt")
