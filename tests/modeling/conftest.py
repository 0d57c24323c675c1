"""Fixtures of the modeling tests."""

import pytest

from . import delta_models, funnel_models, gpt_models, mamba_models
from .nested_models import HEADS, KINDS, UNEVEN, make_adaptor


# A model and its budgets: both kinds of residual stream, each head, layers of equal and of different width.
DELTAS = [
    "DeltaBertModel heads",
    "DeltaBertForMaskedLM joint",
    "DeltaBertForSequenceClassification mixed",
    "DeltaModernBertModel mixed",
    "DeltaModernBertForMaskedLM heads",
    "DeltaModernBertForSequenceClassification joint",
]


@pytest.fixture(params=[*KINDS, *HEADS, "uneven", *DELTAS, "mamba", "gpt", *funnel_models.KINDS])
def nested_model(request, tiny_nested):
    """Every kind of adaptor and funnel, an encoder that is nested on two axes, with each head, the Delta and Mamba
    encoders, the GPT."""
    if request.param in KINDS:
        return make_adaptor(request.param)
    if request.param in funnel_models.KINDS:
        return funnel_models.make(request.param)
    if request.param in DELTAS:
        return delta_models.make(*request.param.split())
    if request.param == "mamba":
        return mamba_models.make()
    if request.param == "gpt":
        return gpt_models.make()
    if request.param == "uneven":
        return tiny_nested.make(intermediate_sizes=UNEVEN, output_scale=0.5, hidden_act="relu")
    return tiny_nested.make(request.param)
