import inspect
from dataclasses import dataclass, field
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from hf_matryoshka.cli.lists import budgets, floats, integers
from hf_matryoshka.cli.options import lists_command, load_yaml, with_flags
from hf_matryoshka.cli.training_flags import training_flags
from hf_matryoshka.recipes.adaptor_recipe import AdaptorRecipe
from hf_matryoshka.recipes.delta_embedding_recipe import DeltaEmbeddingRecipe
from hf_matryoshka.recipes.delta_recipe import DeltaRecipe
from hf_matryoshka.trainers.adaptor_arguments import AdaptorTrainingArguments


@dataclass
class Options:
    rate: float = field(default=0.5, metadata={"help": "How fast."})
    widths: list[int] | None = field(default=None, metadata={"help": "Which."})
    deep: bool = field(default=True, metadata={"help": "Whether."})


def command(name: Annotated[str, typer.Argument()], *, flags: dict):
    """Do it."""
    print(name, sorted(flags.items()))


@pytest.fixture
def app():
    app = typer.Typer()
    app.command()(with_flags(command, Options))
    return app


def test_flags_come_from_the_dataclass_and_only_given_ones_are_handed_over(app):
    run = CliRunner().invoke
    assert run(app, ["x"]).output == "x []\n"
    assert run(app, ["x", "--widths", "4,8", "--no-deep"]).output == "x [('deep', False), ('widths', [4, 8])]\n"
    page = " ".join(run(app, ["--help"], env={"COLUMNS": "150", "TERMINAL_WIDTH": "150"}).output.split())
    assert "--rate" in page and "How fast. (default: 0.5)" in page and "--no-deep" in page
    assert run(app, ["x", "--widths", "4,y"]).exit_code == 2


def test_every_recipe_field_has_a_help_text():
    for recipe in (AdaptorRecipe, DeltaRecipe, DeltaEmbeddingRecipe):
        assert all(item.metadata.get("help") for item in recipe.__dataclass_fields__.values())


@dataclass
class OtherOptions:
    rate: float = field(default=0.1, metadata={"help": "How slow."})
    sizes: list[list[float]] | None = field(default=None, metadata={"help": "Sizes."})
    names: list[str] | None = field(default=None, metadata={"help": "Names."})
    shares: list[float] | None = field(default=None, metadata={"help": "Shares."})


def test_lists_may_be_several_values_after_one_flag():
    app = typer.Typer()
    app.command(cls=lists_command(Options, OtherOptions))(with_flags(command, Options, OtherOptions))

    def flags(*arguments):
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == 0, result.output
        return result.output

    assert flags("--widths", "4", "8", "x") == "x [('widths', [4, 8])]\n"
    assert flags("x", "--widths=4", "--shares", "0.5", "1") == "x [('shares', [0.5, 1.0]), ('widths', [4])]\n"
    assert flags("x", "--names", "a b", "c,d", "--no_deep") == "x [('deep', False), ('names', ['a b', 'c,d'])]\n"
    assert flags("x", "--names", "a,b") == "x [('names', ['a', 'b'])]\n"
    assert flags("x", "--sizes", "0.5:1:2", "1:2:3") == "x [('sizes', [[0.5, 1, 2], [1.0, 2, 3]])]\n"
    # A field of both is one flag; where the help differs, both are shown.
    rate = inspect.signature(with_flags(command, Options, OtherOptions)).parameters["rate"].annotation
    assert rate.__metadata__[0].help == "How fast. (default: 0.5) | How slow. (default: 0.1)"


def test_lists():
    assert integers("16,32") == [16, 32]
    for parser, text in ((integers, "4,y"), (floats, "a"), (budgets, "0.5:1"), (budgets, "0.5:1.5:2")):
        with pytest.raises(typer.BadParameter, match="is no list of"):
            parser(text)


def test_yaml_keys_are_fields(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("rate: 0.1\nwidths: [4, 8]\n")
    assert load_yaml(path, Options) == {"rate": 0.1, "widths": [4, 8]}
    assert load_yaml(None, Options) == {}
    path.write_text("ratee: 0.1\n")
    with pytest.raises(ValueError, match="unknown option 'ratee'; did you mean rate?"):
        load_yaml(path, Options)
    path.write_text("- a\n")
    with pytest.raises(ValueError, match="must map option names to values, but it is a list"):
        load_yaml(path, Options)
    path.write_text("a: [\n")
    with pytest.raises(ValueError, match="is no YAML"):
        load_yaml(path, Options)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_yaml(tmp_path / "none.yaml", Options)


def test_training_flags_are_only_those_given():
    def flags(*arguments):
        return training_flags(list(arguments), AdaptorTrainingArguments, "train adaptor")

    given = flags("--learning_rate", "5e-4", "--contrastive-weight", "0.5", "--level_weights", "1", "2")
    assert given == {"learning_rate": 5e-4, "contrastive_weight": 0.5, "level_weights": [1.0, 2.0]}
    with pytest.raises(ValueError, match="unknown option '--learning_rat'; see hf-matryoshka train adaptor --help"):
        flags("--learning_rat", "1")
    with pytest.raises(ValueError, match="bad training argument"):
        flags("--learning_rate", "fast")
