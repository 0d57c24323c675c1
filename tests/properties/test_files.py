"""Whatever bytes a file holds: they are read, or one sentence names the file."""

import gzip
import json

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hf_matryoshka.cli.options import load_yaml
from hf_matryoshka.data.beir import load_beir
from hf_matryoshka.data.hierarchy_file import read_hierarchy
from hf_matryoshka.data.pairs import iter_pairs
from hf_matryoshka.data.texts import read_texts
from hf_matryoshka.data.vectors import check_vectors, load_vectors
from hf_matryoshka.evaluation.certificate import Certificate
from hf_matryoshka.evaluation.curve import Curve
from hf_matryoshka.hub.manifest import Manifest
from hf_matryoshka.modeling.level_shards import read_level_index
from hf_matryoshka.recipes.adaptor_recipe import AdaptorRecipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


DEEP = "[" * 100_000
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 99)
    | st.floats()
    | st.sampled_from(["", "a", "text", "level", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["text", "a", "b", "_id", "levels", "points", "1", "refine"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
LINES = st.lists(
    VALUES.map(json.dumps) | st.text("ab,\t\"'{}[]:\\\r\0é", max_size=12) | st.just('{"text": "a", "a": "b"}'),
    max_size=4,
).map("\n".join)
CONTENTS = (
    LINES.map(str.encode)
    | LINES.map(str.encode).map(gzip.compress)
    | st.binary(max_size=40)
    | VALUES.map(lambda value: json.dumps(value).encode())
)


def refused(error, path):
    """Whether an error is one of ours: it names the file."""
    assert str(path.name) in str(error) or str(path.parent.name) in str(error), error
    assert len(str(error)) < 600 and "\n" not in str(error), error


SUFFIXES = [".txt", ".jsonl", ".csv", ".tsv", ".jsonl.gz", ".csv.gz", ".txt.gz", ".md"]


@settings(max_examples=200)
@given(content=CONTENTS, suffix=st.sampled_from(SUFFIXES), field=st.sampled_from(["text", "a", "0", "3", "²", ""]))
@example(DEEP.encode(), ".jsonl", "text")
@example(b'"\\ud800"', ".jsonl", "text")
@example(b"a\nb", ".csv", "99999999999999999999")
def test_texts_and_pairs(folder, content, suffix, field):
    path = folder / f"texts{suffix}"
    path.write_bytes(content)
    for read in (
        lambda: read_texts(path, field),
        lambda: [part for pair in iter_pairs(path, field, "b") for part in pair],
    ):
        try:
            texts = read()
        except ValueError as error:
            refused(error, path)
        else:
            assert all(isinstance(text, str) and text.encode() is not None for text in texts)


@settings(max_examples=100)
@given(content=CONTENTS, kind=st.sampled_from([".npy", ".parquet", ".arrow", ".bin"]))
def test_vectors(folder, content, kind):
    path = folder / f"vectors{kind}"
    for data in (content, b"\x93NUMPY\x01\x00" + content):
        path.write_bytes(data)
        with pytest.raises(ValueError) as error:
            load_vectors(path)
        assert path.name in str(error.value)


ARRAYS = st.lists(st.lists(st.floats() | st.integers(-(10**40), 10**40) | st.none(), max_size=3), max_size=3)


@settings(max_examples=150)
@given(rows=ARRAYS | VALUES, width=st.none() | st.integers(0, 3))
def test_rows_of_embeddings(rows, width):
    try:
        found = check_vectors(rows, width, name="rows")
    except ValueError as error:
        assert "rows" in str(error)
        return
    assert found.dtype == np.float32 and found.ndim == 2 and np.isfinite(found).all()
    assert width in (None, found.shape[1])


QRELS = st.lists(st.text("qd1\t -", max_size=8) | st.sampled_from(["q\td\t1", "q\tx\t1"]), max_size=3).map("\n".join)


@settings(max_examples=100)
@given(corpus=LINES, queries=LINES, qrels=QRELS)
@example(DEEP, "", "")
@example('{"_id": "d", "text": "t", "title": 3}', '{"_id": "q", "text": "t"}', "q\td\t1")
def test_beir_folders(folder, corpus, queries, qrels):
    (folder / "beir" / "qrels").mkdir(parents=True, exist_ok=True)
    for name, content in (("corpus.jsonl", corpus), ("queries.jsonl", queries), ("qrels/test.tsv", qrels)):
        (folder / "beir" / name).write_text(content, encoding="utf-8")
    try:
        dataset = load_beir(folder / "beir")
    except ValueError as error:
        assert str(error) and "\n" not in str(error)
        return
    assert all(isinstance(text, str) and text.encode() is not None for text in dataset.documents() + dataset.queries)


GROUPS = st.dictionaries(
    st.integers(-1, 9) | st.sampled_from(["a", "refine", "wordnet", "depths", "min_tokens", None, True, 0.5]),
    st.dictionaries(
        st.integers(0, 3) | st.text("ab", max_size=1), st.lists(st.text("abc", max_size=2), max_size=3) | VALUES
    )
    | VALUES,
    max_size=3,
)


@settings(max_examples=200)
@given(content=GROUPS.map(lambda value: yaml.safe_dump(value).encode()) | CONTENTS)
@example(b"2024-01-01: x")
@example(b"!!python/object/apply:os.system ['true']")
@example(b"&a [*a]")
@example(DEEP.encode())
def test_yaml_files(folder, content):
    path = folder / "options.yaml"
    path.write_bytes(content)
    for read in (read_hierarchy, lambda path: load_yaml(path, AdaptorRecipe)):
        try:
            read(path)
        except (ValueError, FileNotFoundError) as error:
            refused(error, path)


@settings(max_examples=150)
@given(content=CONTENTS)
@example(DEEP.encode())
@example(b'{"format_version": 1, "levels": [], "repos": []}')
@example(b'{"level_shards": {"format_version": 1, "levels": {}, "shards": {}, "pieces": []}, "weight_map": {}}')
def test_json_documents(folder, content):
    path = folder / "model.json"
    path.write_bytes(content)
    readers = (Curve.from_json, Certificate.from_json, lambda path: Manifest.from_text(content, path.name))
    for read in readers:
        with pytest.raises(ValueError) as error:
            read(path)
        refused(error.value, path)
    try:
        assert read_level_index(path, "a folder") is None
    except ValueError as error:
        refused(error, path)
