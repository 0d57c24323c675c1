"""Fixtures of the modeling tests."""

import pytest

from .nested_models import HEADS, KINDS, UNEVEN, make_adaptor


@pytest.fixture(params=[*KINDS, *HEADS, "uneven"])
def nested_model(request, tiny_nested):
    """Every kind of adaptor, and an encoder that is nested on two axes, with each head."""
    if request.param in KINDS:
        return make_adaptor(request.param)
    if request.param == "uneven":
        return tiny_nested.make(intermediate_sizes=UNEVEN, output_scale=0.5, hidden_act="relu")
    return tiny_nested.make(request.param)
