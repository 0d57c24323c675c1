"""Whatever goes into a model: it computes a level, or one sentence names the argument. Nothing fails inside torch."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from .systems import BASES, ON_VECTORS, make_config, model_class


LONGEST = 16
ON_TOKENS = [system for system in BASES if system not in ON_VECTORS]
LENGTHS = st.sampled_from([0, 1, 2, 5, LONGEST, LONGEST + 1])
INTEGERS = [torch.int64, torch.int64, torch.int32, torch.int8, torch.bool, torch.float32]
FLOATS = [torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool]
NAMED = ("input_ids", "attention_mask", "max_position_embeddings", "level", "embeddings")


@functools.cache
def small_model(system):
    torch.manual_seed(0)
    return model_class(system)(make_config(system)).eval()


def levels(config):
    wrong = st.sampled_from(["", "x", "d0", -1, 99, 1.5, True, []])
    return st.none() | st.sampled_from(config.levels) | st.integers(0, len(config.levels) - 1) | wrong


@st.composite
def masks(draw, batch, length):
    """Mostly of the right shape; padding anywhere, rows of padding alone, and values that are not only 0 and 1."""
    shape = (batch, length)
    if draw(st.integers(0, 3)) == 0:
        shape = draw(
            st.sampled_from([(length,), (1, length), (batch, length + 1), (batch, 1), (batch, length, length)])
        )
    kind = draw(st.sampled_from([torch.int64, torch.bool, torch.float32, torch.int32]))
    seed = draw(st.integers(0, 99))
    return torch.randint(draw(st.integers(0, 1)), 2, shape, generator=torch.Generator().manual_seed(seed)).to(kind)


@pytest.mark.parametrize("system", ON_TOKENS)
@settings(max_examples=130)
@given(data=st.data())
def test_tokens(system, data):
    model = small_model(system)
    shape = data.draw(
        st.tuples(st.integers(0, 3), LENGTHS) | st.tuples(LENGTHS) | st.tuples(st.just(1), LENGTHS, LENGTHS)
    )
    tokens = torch.randint(5, 40, shape, generator=torch.Generator().manual_seed(0))
    kind = data.draw(st.sampled_from(INTEGERS))
    batch, length = shape[0], shape[-1]
    mask = data.draw(st.none() | masks(batch, length))
    level = data.draw(levels(model.config))
    good = len(shape) == 2 and 0 not in shape and kind in (torch.int64, torch.int32)
    good &= mask is None or tuple(mask.shape) == shape
    try:
        with torch.no_grad():
            found = model(input_ids=tokens.to(kind), attention_mask=mask, level=level).last_hidden_state
    except ValueError as error:
        sentence = str(error)
        assert any(name in sentence for name in NAMED) and "\n" not in sentence, sentence
        # Refused for a reason: something is wrong, or the positions of a BERT end.
        known = level is None or level in model.config.levels or type(level) is int and level >= 0
        assert not good or not known or level == 99 or length > LONGEST, sentence
        return
    assert good and found.shape[:2] == shape and torch.isfinite(found).all()


@pytest.mark.parametrize("system", ON_VECTORS)
@settings(max_examples=130)
@given(data=st.data())
def test_embeddings(system, data):
    model = small_model(system)
    width = model.config.embedding_dim + data.draw(st.sampled_from([0, 0, 0, 1, -1]))
    shape = (*data.draw(st.lists(st.integers(0, 3), max_size=2)), width)
    kind = data.draw(st.sampled_from(FLOATS))
    scale = data.draw(st.sampled_from([0.0, 1.0, 1e-30, 1e4]))
    vectors = (scale * torch.randn(shape, generator=torch.Generator().manual_seed(0))).to(kind)
    level = data.draw(levels(model.config))
    try:
        with torch.no_grad():
            found = model(vectors, level=level)[0]
    except ValueError as error:
        sentence = str(error)
        assert any(name in sentence for name in NAMED), sentence
        # Refused for a reason; a funnel takes one row of embeddings after the other.
        good = width == model.config.embedding_dim and kind.is_floating_point
        good &= system == "MatryoshkaAdaptor" or len(shape) == 2
        known = level is None or level in model.config.levels or type(level) is int and 0 <= level < 99
        assert not good or not known, sentence
        return
    assert found.shape == (*shape[:-1], model.config.level_dim(level)) and found.dtype == model.dtype
    assert torch.isfinite(found).all()
