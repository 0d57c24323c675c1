import gzip
import json
import re
from pathlib import Path

import pytest

from hf_matryoshka.data.beir import load_beir, save_beir
from hf_matryoshka.data.retrieval import RetrievalDataset


SCIFACT = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "scifact"


@pytest.fixture
def toy():
    return RetrievalDataset(
        name="toy",
        corpus_ids=["d1", "d2"],
        titles=["Été", ""],
        texts=['A "quoted"\ttext.\nTwo lines.', "\u2028Dogs bark."],
        query_ids=["1", "2"],
        queries=["what?", "why?"],
        qrels={"test": {"1": {"d1": 2, "d2": 0}}, "train": {"2": {"d2": 1}}},
    )


@pytest.fixture
def folder(toy, tmp_path):
    save_beir(toy, tmp_path / "toy")
    return tmp_path / "toy"


def test_round_trip(toy, folder):
    assert load_beir(folder) == toy
    assert sorted(path.name for path in folder.parent.iterdir()) == ["toy"]


def test_reads_gzip_numeric_ids_missing_titles_and_a_byte_order_mark(toy, folder):
    (folder / "corpus.jsonl").unlink()
    with gzip.open(folder / "corpus.jsonl.gz", "wt", encoding="utf-8-sig") as file:
        file.write(
            json.dumps({"_id": 7, "text": "no title"}) + "\r\n\n" + json.dumps({"_id": "d2", "text": "x"}) + "\n"
        )
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\r\n1\t7\t1\r\n")
    dataset = load_beir(folder)
    assert dataset.corpus_ids == ["7", "d2"]
    assert dataset.titles == ["", ""]
    assert dataset.qrels["test"] == {"1": {"7": 1}}


def test_qrels_without_a_header_lose_no_line(folder):
    (folder / "qrels" / "test.tsv").write_text("1\td1\t1\n2\td2\t0\n")
    assert load_beir(folder).qrels["test"] == {"1": {"d1": 1}, "2": {"d2": 0}}


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("corpus.jsonl", "has no corpus.jsonl and no corpus.jsonl.gz"),
        ("queries.jsonl", "has no queries.jsonl and no queries.jsonl.gz"),
        ("qrels/t*.tsv", "has no qrels/<split>.tsv"),
    ],
)
def test_a_missing_part_is_named(folder, missing, sentence):
    for path in folder.glob(missing):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=sentence):
        load_beir(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no BEIR folder at .*nowhere"):
        load_beir(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("corpus.jsonl", "", "the corpus of 'toy' is empty"),
        ("corpus.jsonl", '{"_id": "d1", "text": "a"}\n{"_id": ', "corpus.jsonl line 2 is not JSON"),
        ("corpus.jsonl", '{"_id": "d1"}', "corpus.jsonl line 1 must be an object"),
        ("corpus.jsonl", '{"_id": "d1", "text": null}', "corpus.jsonl line 1 must be an object"),
        ("queries.jsonl", "[1, 2]", "queries.jsonl line 1 must be an object"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\n1\td1\n", "test.tsv line 2 must be query id, document id"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\n1\td1\thigh\n", r"separated by tabs; got '1\td1\thigh'"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\n1\td5\t1\n", "name the unknown document 'd5'"),
    ],
)
def test_bad_content_is_named_with_file_and_line(folder, file, content, sentence):
    (folder / file).write_text(content)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        load_beir(folder)


def test_a_cut_gzip_file_is_named(folder):
    whole = gzip.compress((folder / "corpus.jsonl").read_bytes())
    (folder / "corpus.jsonl").unlink()
    for broken in (whole[:-12], b"not gzip at all"):
        (folder / "corpus.jsonl.gz").write_bytes(broken)
        with pytest.raises(ValueError, match="corpus.jsonl.gz is not a whole gzip file"):
            load_beir(folder)


def test_text_that_is_not_utf8_is_named(folder):
    (folder / "queries.jsonl").write_bytes('{"_id": "1", "text": "é"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="queries.jsonl is not UTF-8"):
        load_beir(folder)


def test_save_refuses_a_folder_that_holds_something(toy, folder):
    with pytest.raises(FileExistsError, match="toy already exists"):
        save_beir(toy, folder)


def test_save_fills_an_empty_folder(toy, tmp_path):
    (tmp_path / "empty").mkdir()
    save_beir(toy, tmp_path / "empty")
    assert load_beir(tmp_path / "empty").queries == toy.queries


def test_save_names_a_place_that_cannot_be_written(toy, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot make the folder .*file"):
        save_beir(toy, tmp_path / "file" / "toy")


def test_an_interrupted_save_leaves_nothing(toy, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_matryoshka.data.beir._write_jsonl", fail)
    with pytest.raises(KeyboardInterrupt):
        save_beir(toy, tmp_path / "toy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not SCIFACT.is_dir(), reason="../shared/data/scifact is not on this machine")
def test_real_scifact():
    dataset = load_beir(SCIFACT)
    assert dataset.name == "scifact"
    assert (len(dataset.corpus_ids), len(dataset.queries)) == (5183, 1109)
    assert {split: len(qrels) for split, qrels in dataset.qrels.items()} == {"test": 300, "train": 809}
    assert dataset.documents()[0].startswith("Microstructural development of human newborn cerebral white matter")
