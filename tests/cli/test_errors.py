"""What every command says of bad input: one sentence, exit status 2, no traceback, and nothing is written."""

import pytest

from .command_tree import commands


# Arguments that name files which do not exist, and what the sentence must name.
MISSING = {
    ("ablate",): (["none.yaml"], "none.yaml does not exist"),
    ("bench", "gpt"): (["none", "--text", "none.txt"], "none holds no Matryoshka GPT"),
    ("bench", "mamba"): (["none"], "cannot load a Mamba encoder from 'none'"),
    ("certify",): (["none"], "none"),
    ("completion",): (["tcsh"], "no completion for 'tcsh'; choose one of bash, zsh, fish"),
    ("combine",): (["out", "none", "none"], "none"),
    ("cosine-maps",): (["none", "out.png"], "none holds no decoder"),
    ("dendrograms",): (["none", "out.png"], "none holds no decoder"),
    ("embed",): (["none.txt", "out.parquet"], "none.txt does not exist"),
    ("evaluate",): (["none", "--beir", "none"], "none"),
    ("export",): (["none", "out"], "none holds no adaptor"),
    ("family", "show"): (["none"], "none"),
    ("fold-glue",): (["none", "out"], "none holds no combined decoder"),
    ("frontier",): (["none", "--beir", "none"], "none"),
    ("hub", "serve"): (["--max-upload-mb", "0"], "--max-upload-mb is 0"),
    ("optimize",): (["--funnel", "none", "--objective", "math:sqrt", "--output", "out", "--maximize"], "none"),
    ("pack",): (["none.txt", "out"], "none.txt does not exist"),
    ("push",): (["none", "me/demo"], "none"),
    ("quickstart",): (["--beir", "none", "--output", "out"], "none"),
    ("select",): (["none.json", "--min-quality", "0.9"], "none.json"),
    ("space",): (["none", "out", "--corpus", "none.txt"], "none"),
    ("train", "adaptor"): (["out", "--vectors", "none.npy"], "none.npy"),
    ("train", "delta"): (["out", "--config", "none.yaml"], "config none.yaml does not exist"),
    ("train", "fractal"): (["out", "--config", "none.yaml"], "config none.yaml does not exist"),
    ("train", "funnel"): (["out", "--vectors", "none.npy"], "none.npy"),
    ("train", "gpt"): (["out", "--texts", "none.txt"], "none.txt does not exist"),
    ("train", "mamba"): (["out", "--config", "none.yaml"], "config none.yaml does not exist"),
}
# What `train` asks for before it reads training arguments.
NEEDED = {("train", "adaptor"): ["--vectors", "none.npy"]}


@pytest.fixture
def refused(command, tmp_path, monkeypatch):
    """Runs a command that must refuse; returns its sentence."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        before = sorted(tmp_path.iterdir())
        status, output, error = command(*arguments)
        assert (status, output) == (2, ""), (arguments, status, output, error)
        assert error.startswith("Error: ") and len(error.strip().splitlines()) == 1, (arguments, error)
        assert sorted(tmp_path.iterdir()) == before, arguments
        return error

    return run


def test_the_table_has_every_command():
    assert set(MISSING) | {("doctor",)} == set(commands())


@pytest.mark.parametrize("words", sorted(MISSING), ids=" ".join)
def test_missing_files_and_unknown_options(refused, words):
    arguments, message = MISSING[words]
    assert message in refused(*words, *arguments)
    if words[0] == "train":
        error = refused(*words, "out", *NEEDED.get(words, []), "--no-such-option", "1")
        assert f"unknown option '--no-such-option'; see hf-matryoshka {' '.join(words)} --help" in error
    else:
        error = refused(*words, *arguments, "--no-such-option", "1")
        assert "No such option: --no-such-option" in error and f"; see hf-matryoshka {' '.join(words)} --help" in error


@pytest.mark.parametrize("words", [words for words in sorted(MISSING) if words[0] == "train"], ids=" ".join)
def test_values_of_another_type_in_a_file(refused, tmp_path, words):
    config = tmp_path / "run.yaml"
    for line, message in (
        ("learning_rate: fast", "learning_rate must be a number, but is 'fast'"),
        ("max_steps: true", "max_steps must be a whole number, but is True"),
        ("seed: [1]", "seed must be a whole number, but is [1]"),
        ("no_such_option: 1", "unknown option 'no_such_option'"),
        ("- 1", "must map option names to values, but it is a list"),
        ("a: [", "is no YAML"),
    ):
        config.write_text(line)
        assert message in refused(*words, "out", *NEEDED.get(words, []), "--config", config)


def test_values_of_another_type_in_an_ablation(refused, tmp_path):
    for text, message in (
        ("base: {max_length: long}\nvariants: [{name: a}]", "max_length must be a whole number, but is 'long'"),
        ("base: {}\nvariants: [{name: a, texts: 3}]", "variant 'a': texts must be a list, each item text, but is 3"),
    ):
        (tmp_path / "study.yaml").write_text(text)
        assert message in refused("ablate", "study.yaml")


def test_usage_is_one_sentence(refused):
    assert refused("embed") == "Error: Missing argument 'texts'; see hf-matryoshka embed --help\n"
    assert "Did you mean 'select'? See hf-matryoshka --help" in refused("selekt")
    assert "Invalid value for '--batch-size'" in refused("embed", "a", "b", "--batch-size", "x")
    assert "'4,x' is no list of integers" in refused("evaluate", "x", "--dims", "4,x")


def test_no_arguments_are_answered_with_help(command):
    status, output, error = command("train")
    assert status == 2 and "Usage: hf-matryoshka train" in output and error == ""


def test_an_interrupted_command_says_how_to_go_on(command, monkeypatch, tmp_path):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_matryoshka.evaluation.curve.Curve.from_json", interrupted)
    (tmp_path / "curve.json").touch()
    status, output, error = command("select", tmp_path / "curve.json")
    assert (status, output) == (130, "") and "the same command goes on where it stopped" in error
