"""Files that once ended in a traceback: each is refused in one sentence that names it."""

import pytest

from hf_matryoshka.data.beir import load_beir
from hf_matryoshka.data.hierarchy_file import read_hierarchy
from hf_matryoshka.data.texts import read_texts
from hf_matryoshka.evaluation.certificate import Certificate
from hf_matryoshka.evaluation.curve import Curve
from hf_matryoshka.hub.manifest import Manifest
from hf_matryoshka.modeling.level_shards import read_level_index


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "line,message",
    [(DEEP, "line 1 of .*texts.jsonl is no JSON"), ('"a\\ud800"', "line 1 of .*texts.jsonl has half of a character")],
)
def test_texts(tmp_path, line, message):
    (tmp_path / "texts.jsonl").write_text(line)
    with pytest.raises(ValueError, match=message):
        read_texts(tmp_path / "texts.jsonl")


@pytest.mark.parametrize(
    "line,message",
    [
        (DEEP, r"corpus.jsonl line 1 is not JSON \(too deep\)"),
        ('{"_id": 1, "text": "a", "title": 3}', 'corpus.jsonl line 1 has a "title" that is no string'),
        ('{"_id": 1, "text": "a", "title": "\\udfff"}', "corpus.jsonl line 1 has half of a character"),
    ],
)
def test_beir(tmp_path, line, message):
    (tmp_path / "qrels").mkdir()
    for name, content in (("corpus.jsonl", line), ("queries.jsonl", ""), ("qrels/test.tsv", "")):
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_beir(tmp_path)


@pytest.mark.parametrize(
    "content,message",
    [
        ("2024-99-99: {a: b}", "groups.yaml is no YAML: month must be in"),
        (DEEP, "groups.yaml is no YAML"),
        ("{1: {a: b}, x: {a: b}}", "groups.yaml: prefix lengths are whole numbers, but 'x' is none"),
        ("{true: {a: b}}", "groups.yaml: prefix lengths are whole numbers, but True is none"),
        ("{1: {a: b, c: b}}", "groups.yaml: token 'b' is in two groups"),
    ],
)
def test_hierarchies(tmp_path, content, message):
    (tmp_path / "groups.yaml").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_hierarchy(tmp_path / "groups.yaml")


def test_documents_that_are_nested_too_deep(tmp_path):
    path = tmp_path / "model.json"
    path.write_text(DEEP)
    readers = (Curve.from_json, Certificate.from_json, lambda path: Manifest.from_text(DEEP, path.name))
    for read in (*readers, lambda path: read_level_index(path, "a folder")):
        with pytest.raises(ValueError, match="model.json"):
            read(path)
