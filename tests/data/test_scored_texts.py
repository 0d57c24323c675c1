import gzip

import numpy as np
import pytest

from hf_matryoshka.data.scored_texts import read_scored_texts


def test_tables_and_json_lines(tmp_path):
    (tmp_path / "a.csv").write_text('name,score\n"a, b",1.5\nc,-2\n')
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write('{"name": "a, b", "value": 1.5}\n{"name": "c", "value": -2}\n')
    for name, field in (("a.csv", "score"), ("a.jsonl.gz", "value")):
        texts, scores = read_scored_texts(tmp_path / name, "name", field)
        assert texts == ["a, b", "c"] and scores.dtype == np.float64 and scores.tolist() == [1.5, -2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,score\na,high\n", "the score of 'a' is 'high', which is no finite number"),
        ("a.csv", "text,score\na,nan\n", "the score of 'a' is 'nan'"),
        ("a.csv", "text,value\na,1\n", "has no column 'score'"),
        ("a.jsonl", '{"text": "a", "score": true}\n', "the score of 'a' is True"),
        ("a.jsonl", '{"text": "a"}\n', "the score of 'a' is None"),
        ("a.jsonl", '"a"\n', "the score of 'a' is None"),
        ("a.jsonl", "", "holds no text with a score"),
        ("a.txt", "a\n", "is neither .jsonl, .csv nor .tsv"),
    ],
)
def test_what_is_no_score_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_scored_texts(tmp_path / name)
