"""Names and types of options that come from a file."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import pytest

from hf_matryoshka.recipes.option_values import check_options


class Colour(Enum):
    RED = "red"


@dataclass
class Options:
    rate: float = 0.5
    share: float | None = None
    steps: int = 1
    deep: bool = True
    name: str | None = None
    kind: Literal["a", "b"] = "a"
    colour: Colour | str = "red"
    widths: list[float] | None = None
    budgets: list[list] | None = None
    extra: dict | str | None = None
    derived: int = field(default=0, init=False)


def test_values_of_the_right_type_stay_as_they_are():
    values = {"rate": 1, "share": None, "steps": 3, "deep": False, "name": "x", "kind": "b", "colour": "red"}
    values |= {"widths": [1, 0.5], "budgets": [[0.5, 1, 2]], "extra": {"a": 1}}
    checked = check_options(values, "config x", Options)
    assert checked == values and type(checked["rate"]) is int
    # What YAML reads as text, because there is no point in it.
    checked = check_options({"rate": "5e-4", "share": "1e-2", "widths": ["1e-1", 1]}, "config x", Options)
    assert checked == {"rate": 5e-4, "share": 0.01, "widths": [0.1, 1]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": "fast"}, "rate must be a number, but is 'fast'"),
        ({"share": [1]}, r"share must be a number, but is \[1\]"),
        ({"rate": True}, "rate must be a number, but is True"),
        ({"steps": 1.5}, "steps must be a whole number, but is 1.5"),
        ({"steps": True}, "steps must be a whole number, but is True"),
        ({"steps": None}, "steps must be a whole number, but is None"),
        ({"deep": "no"}, "deep must be true or false, but is 'no'"),
        ({"name": 3}, "name must be text, but is 3"),
        ({"kind": "c"}, "kind must be 'a' or 'b', but is 'c'"),
        ({"colour": False}, "colour must be text, but is False"),
        ({"widths": 3}, "widths must be a list, each item a number, but is 3"),
        ({"widths": [1, "x"]}, "widths must be a list, each item a number"),
        ({"budgets": [1]}, "budgets must be a list, each item a list"),
        ({"extra": 1}, "extra must be a mapping or text, but is 1"),
        ({"ratee": 1}, "config x has the unknown option 'ratee'; did you mean rate?"),
        ({"derived": 1}, "has the unknown option 'derived'"),
        ({3: 1}, "has the unknown option 3"),
    ],
)
def test_other_types_are_one_sentence(values, message):
    with pytest.raises(ValueError, match=message):
        check_options(values, "config x", Options)
