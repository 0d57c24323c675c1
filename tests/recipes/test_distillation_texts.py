import json

import pytest

from hf_matryoshka.recipes.delta_embedding_recipe import DeltaEmbeddingRecipe
from hf_matryoshka.recipes.distillation_texts import gather_texts


@pytest.fixture
def files(tmp_path):
    (tmp_path / "a.txt").write_text("One text.\none  text\nTwo texts here. And one more sentence of it.\nshort\n")
    rows = [{"gloss": "a meaning"}, {"gloss": "Forbidden thing"}]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "no.csv").write_text("1,forbidden thing.\n")
    return tmp_path


def recipe(files, **fields):
    settings = {"texts": [str(files / "a.txt"), str(files / "b.jsonl")], "text_field": ["text", "gloss"]}
    return DeltaEmbeddingRecipe(**(settings | fields))


def test_each_text_once_and_none_that_is_excluded(files):
    found = gather_texts(recipe(files, exclude=[str(files / "no.csv")], exclude_field=["1"]))
    assert sorted(found) == ["One text.", "Two texts here. And one more sentence of it.", "a meaning", "short"]
    assert "Forbidden thing" in gather_texts(recipe(files))


def test_the_order_depends_on_the_seed_only(files):
    first = gather_texts(recipe(files, seed=1))
    swapped = {"texts": [str(files / "b.jsonl"), str(files / "a.txt")], "text_field": ["gloss", "text"]}
    assert gather_texts(recipe(files, seed=1, **swapped)) == first
    assert any(gather_texts(recipe(files, seed=seed)) != first for seed in range(2, 6))


def test_sentences_limits_and_cuts(files):
    found = gather_texts(recipe(files, split_sentences=True))
    assert "And one more sentence of it." in found and "Two texts here." not in found  # too short by itself
    assert len(gather_texts(recipe(files, max_texts_per_file=1))) == 2
    assert max(map(len, gather_texts(recipe(files, max_characters=9)))) == 9


def test_long_texts_become_passages_and_sentences_have_a_limit_of_their_own(files):
    words = [f"Number {number} says a thing or two." for number in range(40)]
    (files / "a.txt").write_text("A text by itself.\n" + " ".join(words) + "\n")
    only = {"texts": [str(files / "a.txt")], "text_field": None, "max_characters": 100}
    passages = gather_texts(recipe(files, split_passages=True, **only))
    assert "A text by itself." in passages and len(passages) == 15 and max(map(len, passages)) <= 100
    assert " ".join(words[:3]) in passages
    limits = {"split_sentences": True, "max_texts_per_file": 4, "max_sentences_per_file": 6}
    found = gather_texts(recipe(files, split_passages=True, **limits, **only))
    assert len(found) == 10 and sum(text in words for text in found) in (6, 7)  # the last passage is a sentence
    # The same texts are drawn, whatever the limit of sentences.
    other = gather_texts(recipe(files, split_passages=True, **limits | {"max_sentences_per_file": 9}, **only))
    assert len(other) == 13 and set(found) < set(other)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"texts": None}, "give texts"),
        ({"text_field": ["a", "b", "c"]}, "text_field has 3 names for 2 files"),
        ({"max_length": 0}, "max_length must be at least 1"),
        ({"max_sentences_per_file": 3}, "max_sentences_per_file needs split_sentences"),
        ({"validation_fraction": 1.0}, "validation_fraction must be in"),
        ({"objective": "masked_lm"}, "is not 'embedding'"),
        ({"width_budgets": [0.5, 1.0], "head_budgets": [4]}, "must be equally long, but have 2, 1 and 0 values"),
    ],
)
def test_bad_options_are_refused(files, fields, message):
    with pytest.raises(ValueError, match=message):
        recipe(files, **fields)


def test_nothing_left_is_refused(files):
    with pytest.raises(ValueError, match="hold no text to train on that is not excluded"):
        gather_texts(
            recipe(
                files,
                texts=[str(files / "no.csv")],
                text_field=["1"],
                exclude=[str(files / "no.csv")],
                exclude_field=["1"],
            )
        )
