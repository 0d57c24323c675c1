"""Whatever is written into a config: it is refused in a sentence that names an argument, or it is a model."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from .systems import BASES, REFUSED, config_class, fields, make_config, model_class, values


REPO_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
# What Python says when nobody has looked at an argument.
ACCIDENT = re.compile(r"unpack|not supported between|object is not|has no attribute|out of range")


@pytest.mark.parametrize("system", BASES)
@settings(max_examples=160)
@given(data=st.data())
def test_any_value_is_taken_or_refused_by_name(system, data):
    names = data.draw(st.lists(st.sampled_from(fields(system)), min_size=1, max_size=2, unique=True))
    options = {name: data.draw(values(system, name), label=name) for name in names}
    try:
        config = make_config(system, **options)
    except REFUSED as error:
        sentence = str(error)
        known = {*fields(system), "budget", "rope_type", "layer_types"}
        assert any(name in sentence for name in known), sentence
        assert not ACCIDENT.search(sentence), sentence
        return
    assert len(set(config.levels)) == len(config.levels) and all(map(REPO_NAME.fullmatch, config.levels))
    assert config_class(system).from_dict(config.to_dict()).to_dict() == config.to_dict()
    for level in config.levels:
        assert config.cut(level).levels[-1] == level or system == "FractalFormer"
    with torch.device("meta"):
        model = model_class(system)(config)
    assert model.level_shapes(config.levels[0])
