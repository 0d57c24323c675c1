"""Whatever stands in a config of a training: it is refused in a sentence that names an option, or every number in it
is one that can be computed with."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TrainingArguments

from hf_matryoshka.recipes.adaptor_recipe import AdaptorRecipe
from hf_matryoshka.recipes.delta_embedding_recipe import DeltaEmbeddingRecipe
from hf_matryoshka.recipes.delta_recipe import DeltaRecipe
from hf_matryoshka.recipes.fractal_recipe import FractalRecipe
from hf_matryoshka.recipes.funnel_recipe import FunnelRecipe
from hf_matryoshka.recipes.gpt_recipe import GPTRecipe
from hf_matryoshka.recipes.mamba_recipe import MambaRecipe
from hf_matryoshka.recipes.option_values import check_options
from tests.documentation.commands import ARGUMENTS

from .systems import ODD, OF_TYPE
from .test_configs import ACCIDENT


TEXTS = {"texts": ["a.txt", "b.txt", "c.txt", "d.txt"]}
RECIPES = {
    AdaptorRecipe: {},
    DeltaEmbeddingRecipe: TEXTS,
    DeltaRecipe: TEXTS,
    FractalRecipe: TEXTS,
    FunnelRecipe: TEXTS,
    GPTRecipe: TEXTS,
    MambaRecipe: TEXTS,
}
# Without what would reach for devices, files or services.
STOCK = ("learning_rate", "weight_decay", "warmup_steps", "max_steps", "max_grad_norm", "num_train_epochs", "seed")


def drawn(data, kind, names):
    defaults = {item.name: item.default for item in dataclasses.fields(kind)}
    chosen = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))
    values = {}
    for name in chosen:
        of_type = OF_TYPE.get(type(defaults[name]), ODD)
        values[name] = data.draw(of_type | of_type | ODD, label=name)
    return values


def numbers(value):
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [value] if isinstance(value, float) else []


def refused(error, kind):
    sentence = str(error)
    assert any(item.name in sentence for item in dataclasses.fields(kind)), sentence
    assert not ACCIDENT.search(sentence) and "\n" not in sentence, sentence


@pytest.mark.parametrize("kind", RECIPES, ids=lambda kind: kind.__name__)
@settings(max_examples=130)
@given(data=st.data())
def test_recipes(kind, data):
    names = [item.name for item in dataclasses.fields(kind)]
    try:
        recipe = kind(**check_options(RECIPES[kind] | drawn(data, kind, names), "config", kind))
    except ValueError as error:
        refused(error, kind)
        return
    assert dataclasses.replace(recipe) == recipe


@pytest.mark.parametrize("kind", ARGUMENTS, ids=lambda kind: kind.__name__)
@settings(max_examples=100)
@given(data=st.data())
def test_arguments(kind, data, tmp_path_factory):
    own = {item.name for item in dataclasses.fields(kind)} - {
        item.name for item in dataclasses.fields(TrainingArguments)
    }
    values = drawn(data, kind, sorted(own | set(STOCK)))
    try:
        arguments = kind(str(tmp_path_factory.getbasetemp()), use_cpu=True, **check_options(values, "config", kind))
    except ValueError as error:
        refused(error, kind)
        return
    for name in values:
        for number in numbers(getattr(arguments, name)):
            assert math.isfinite(number) or (name, number) == ("max_grad_norm", math.inf), name
