"""What an option of an optimisation may be, before anything is computed with it."""

import math
import numbers
from typing import Any


def check_whole_numbers(**arguments: Any) -> None:
    """Raise `ValueError` unless each argument is a whole number; `None`, what is not given, passes."""
    for name, value in arguments.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, numbers.Integral)):
            raise ValueError(f"{name} must be a whole number, but is {value!r}")


def check_numbers(**arguments: Any) -> None:
    """Raise `ValueError` unless each argument is a finite number; `None`, what is not given, passes."""
    for name, value in arguments.items():
        if value is not None and not is_number(value):
            raise ValueError(f"{name} must be a finite number, but is {value!r}")


def check_switches(**arguments: Any) -> None:
    """Raise `ValueError` unless each argument is `True` or `False`."""
    for name, value in arguments.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be True or False, but is {value!r}")


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that a float can hold."""
    try:
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False
