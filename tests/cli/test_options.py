from dataclasses import dataclass, field
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from hf_matryoshka.cli.options import integers, load_yaml, with_flags
from hf_matryoshka.cli.train import training_flags
from hf_matryoshka.recipes.adaptor_recipe import AdaptorRecipe


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
    assert all(item.metadata.get("help") for item in AdaptorRecipe.__dataclass_fields__.values())


def test_integers():
    assert integers("16,32") == [16, 32]


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
    given = training_flags(["--learning_rate", "5e-4", "--contrastive-weight", "0.5", "--level_weights", "1", "2"])
    assert given == {"learning_rate": 5e-4, "contrastive_weight": 0.5, "level_weights": [1.0, 2.0]}
    with pytest.raises(ValueError, match="unknown option '--learning_rat'"):
        training_flags(["--learning_rat", "1"])
    with pytest.raises(ValueError, match="bad training argument"):
        training_flags(["--learning_rate", "fast"])
