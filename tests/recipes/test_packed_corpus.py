import json

import pytest

from hf_matryoshka.recipes.delta_recipe import DeltaRecipe
from hf_matryoshka.recipes.packed_corpus import Corpus


def write(path, texts, field="text"):
    path.write_text("".join(json.dumps({field: text}) + "\n" for text in texts))
    return str(path)


def sides(**options):
    corpus = Corpus(DeltaRecipe(**options))
    train, validation = list(corpus.train()), list(corpus.validation())
    if options.get("texts"):
        assert (corpus.num_train, corpus.num_validation) == (len(train), len(validation))
    return train, validation


def test_documents_are_held_out_by_their_characters_and_copies_together(tmp_path):
    short = [f"short text number {number:03d}" for number in range(200)]
    long = ["long " * 200, "longer " * 200]
    path = write(tmp_path / "a.jsonl", [*short, *long, *short], "body")
    train, validation = sides(texts=[path], text_field=["body"], validation_fraction=0.1, seed=1)
    assert sorted(train + validation) == sorted([*short, *long, *short])
    assert not set(train) & set(validation)
    total = sum(map(len, train + validation))
    # A long text would exceed the part, so short ones fill it.
    assert 0.09 < sum(map(len, validation)) / total <= 0.1
    assert sides(texts=[path], text_field=["body"], validation_fraction=0.1, seed=1)[1] == validation
    assert sides(texts=[path], text_field=["body"], validation_fraction=0.1, seed=2)[1] != validation
    assert sides(texts=[path], text_field=["body"], validation_fraction=0)[1] == []


def test_a_few_long_texts_hold_out_one(tmp_path):
    path = write(tmp_path / "books.jsonl", ["a" * 1000, "b" * 900, "c" * 1100])
    assert sides(texts=[path], validation_fraction=0.05)[1] == ["b" * 900]
    # The only text stays in training.
    path = write(tmp_path / "one.jsonl", ["a" * 1000])
    assert sides(texts=[path], validation_fraction=0.05) == (["a" * 1000], [])


def test_balanced_files_have_equal_shares(tmp_path):
    small = write(tmp_path / "small.jsonl", [f"small {number:04d}" for number in range(100)])
    large = write(tmp_path / "large.jsonl", [f"large {number:04d}" for number in range(1000)], "gloss")
    options = {"texts": [small, large], "text_field": ["text", "gloss"], "validation_fraction": 0.1}
    train, validation = sides(**options, balance=True)
    for part, count in ((train, 90), (validation, 10)):
        assert [sum(text.startswith(name) for text in part) for name in ("small", "large")] == [count, count]
    assert not set(train) & set(validation)
    assert len(sides(**options)[0]) == 990


def test_a_data_set_streams(tmp_path):
    write(tmp_path / "train.jsonl", [f"text {number}" for number in range(400)], "body")
    options = {"dataset_name": str(tmp_path), "dataset_column": "body"}
    train, validation = sides(**options, validation_fraction=0.25)
    assert len(train) + len(validation) == 400 and 60 < len(validation) < 140
    assert not set(train) & set(validation)
    assert len(sides(**options, max_documents=7, validation_fraction=0)[0]) == 7
    with pytest.raises(ValueError, match="has no text in the column 'text' .it has body.; give dataset_column"):
        sides(dataset_name=str(tmp_path))
    with pytest.raises(OSError, match="cannot load split 'test' of the data set"):
        sides(**options, dataset_split="test")
    with pytest.raises(OSError, match="cannot load split 'train' of the data set 'nobody/nothing'"):
        sides(dataset_name="nobody/nothing")
