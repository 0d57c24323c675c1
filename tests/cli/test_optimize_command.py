"""`hf-matryoshka optimize` as a user runs it."""

import json

import pytest
from safetensors.numpy import load_file

from hf_matryoshka.data.base_models import load_base_model
from hf_matryoshka.surgery.funnel_init import init_funnel


SIZES = {"encoder_sizes": [4], "predictor_sizes": [4], "decoder_sizes": [4]}
OBJECTIVES = """
from pathlib import Path

ASKED = []
number = 3

def words(text):
    ASKED.append(text)
    if "gene" in text:
        raise RuntimeError("no genes")
    return text.count("small") + text.count("dog")

def first(embedding):
    return float(embedding[0])

def fails(text):
    return float("nan")
"""
TEXTS = [f"a {size} {animal} in the {place}" for size in ("small", "large") for animal in ("cat", "dog", "bird")
         for place in ("river", "city", "cell", "gene")]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current directory, with a module of objectives; what the user's modules leave behind is taken back."""
    import sys

    (tmp_path / "my_scores.py").write_text(OBJECTIVES)
    (tmp_path / "broken_scores.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in [*TEXTS, TEXTS[0]]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("my_scores", "broken_scores"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def funnel(tiny_sentence_transformer, tmp_path_factory):
    embeddings = load_base_model(tiny_sentence_transformer, "cpu").encode(TEXTS)
    model = init_funnel(embeddings, matryoshka_dims=[2, 4], base_model=tiny_sentence_transformer, **SIZES)
    path = tmp_path_factory.mktemp("funnel") / "model"
    model.save_pretrained(path)
    return path.parent


def test_texts_are_found_and_the_run_is_resumed(command, folder, funnel):
    import sys

    arguments = ["optimize", "--funnel", funnel, "--objective", "my_scores:words", "--maximize", "--trials", 8]
    arguments += ["--initial", 6, "--corpus", "texts.jsonl", "--text-field", "body", "--output", folder / "run"]
    status, output, error = command(*arguments)
    assert status == 0, error
    assert "best_so_far" in output and "Best: 2 in trial" in output and "a small dog in the" in output
    assert {"run.json", "state.json", "summary.json", "trace.png", "trials.safetensors"} == {
        path.name for path in (folder / "run").iterdir()
    }
    asked = sys.modules["my_scores"].ASKED
    assert len(asked) == 8 and len(set(asked)) == 8 and set(asked) <= set(TEXTS)
    status, output, _ = command(*arguments, "--json")
    found = json.loads(output)
    assert status == 0 and len(asked) == 8 and found["best"]["value"] == 2 and found["settings"]["mode"] == "nested"
    assert load_file(folder / "run" / "trials.safetensors")["embeddings"].shape == (8, 32)
    status, _, error = command(*arguments, "--seed", 1)
    assert status == 2 and "holds other files or a run with other data or options" in error
    status, output, _ = command(*arguments, "--seed", 1, "--overwrite", "--optimizer", "pool", *["--trials", 24])
    assert status == 2
    arguments = [item for item in arguments if item not in ("--initial", 6)]
    status, output, _ = command(*arguments, "--overwrite", "--optimizer", "pool", "--trials", 24, "--json")
    found = json.loads(output)
    assert status == 0 and found["trials"] == 24 and found["diagnostics"]["duplicate_rate"] == 0
    assert found["diagnostics"]["failure_rate"] == 0.25


def test_known_scores_are_learned_from_and_are_no_trials(command, folder, funnel):
    (folder / "known.csv").write_text("body,points\n" + "".join(f"{t},{t.count('dog')}\n" for t in TEXTS[:9]))
    arguments = ["optimize", "--funnel", funnel, "--objective", "my_scores:words", "--maximize", "--trials", 3]
    arguments += ["--initial", 2, "--corpus", "texts.jsonl", "--text-field", "body", "--mode", "full"]
    arguments += ["--known", "known.csv"]
    status, output, error = command(*arguments, "--score-field", "points", "--output", "run", "--json")
    found = json.loads(output)
    assert status == 0 and found["trials"] == 3 and found["settings"]["corpus"] == [9, 4.0]
    status, _, error = command(*arguments, "--output", "other")
    assert status == 2 and "known.csv has no column 'score' in its first row (body, points)" in error
    status, _, error = command(*arguments, "--optimizer", "turbo", "--output", "other")
    assert status == 2 and "'turbo' does not learn from known scores; choose one of staged, gp, linear" in error
    without = [item for item in arguments if item not in ("--corpus", "texts.jsonl")]
    status, _, error = command(*without, "--output", "other")
    assert status == 2 and "known scores are those of texts; give the corpus" in error
    assert not (folder / "other").exists()


def test_embeddings_are_minimised_by_workers_and_the_run_is_pushed(command, hub, folder, funnel):
    arguments = ["optimize", "--funnel", funnel / "model", "--objective", "my_scores:first", "--minimize"]
    arguments += ["--optimizer", "random", "--trials", 4, "--workers", 2, "--output", "run", "--json"]
    status, output, error = command(*arguments)
    assert status == 0, error
    found = json.loads(output)
    assert found["best_values"] == sorted(found["best_values"], reverse=True) and found["best"]["text"] is None
    status, output, _ = command(*arguments[:-1], "--push", "me/first")
    assert status == 0 and "Data set: me/first, pushed" in output and hub.repos("dataset") == ["me/first"]
    status, _, error = command(*arguments[:-1], "--push", "you/first")
    assert status == 2 and "is not allowed to this token" in error


def test_bad_input_is_one_sentence(command, folder, funnel):
    def error(*flags, objective="my_scores:words", direction=("--maximize",), at=funnel):
        arguments = ["--funnel", at, "--objective", objective, "--output", "run", *direction, *flags]
        status, _, message = command("optimize", *arguments)
        assert status == 2 and not (folder / "run").exists()
        # Below the progress of loading the funnel.
        assert message.splitlines()[-1].startswith("Error: ")
        return message

    assert "say which values are better: --maximize or --minimize" in error(direction=())
    assert "'words' must be named as module:function" in error(objective="words")
    assert "the module my_scores has no function score" in error(objective="my_scores:score")
    assert "number of the module my_scores cannot be called: it is a int" in error(objective="my_scores:number")
    message = error(objective="broken_scores:words")
    assert "broken_scores of the objective broken_scores:words cannot be imported (ModuleNotFoundError" in message
    assert "1 trials are fewer than the 2 stages" in error("--trials", 1)
    assert "holds no funnel" in error(at=folder)
    assert "optimizer 'anneal' does not exist; choose one of staged" in error("--optimizer", "anneal")
    assert "the optimizer 'random' has no option mode" in error("--optimizer", "random", "--mode", "full")
    assert "the optimizer 'pool' needs a corpus" in error("--optimizer", "pool")
    assert "surrogate 'texts' needs a search space with decode_texts and encode_texts" in error("--surrogate", "texts")
    assert "none.jsonl" in error("--corpus", "none.jsonl")
    assert "workers must not be negative" in error("--workers", -1)
    assert "bound must be above 0" in error("--bound", 0)


def test_a_run_without_a_value_says_why(command, folder, funnel):
    arguments = ["--funnel", funnel, "--objective", "my_scores:fails", "--maximize", "--optimizer", "random"]
    status, _, message = command("optimize", *arguments, "--trials", 3, "--output", "run")
    assert status == 2 and "none of 3 trials has a value; the last one: the objective gave nan" in message
