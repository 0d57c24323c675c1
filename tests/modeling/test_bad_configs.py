"""Numbers and names that no config may have, each of which once came out of torch as a traceback or as NaN."""

import pytest
from huggingface_hub.errors import StrictDataclassError

from hf_matryoshka import modeling


DELTA = {"hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 12}
GPT = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
NAN, INF = float("nan"), float("inf")
CASES = [
    ("MatryoshkaAdaptor", {"intermediate_size": -1}, "intermediate_size must be at least 1"),
    ("MatryoshkaAdaptor", {"hidden_act": "x"}, "hidden_act 'x' does not exist; choose one of gelu"),
    ("MatryoshkaAdaptor", {"initializer_range": NAN}, "initializer_range must be at least 0, but is nan"),
    ("MatryoshkaAdaptor", {"kind": "permutation", "sort_temperature": 0}, "sort_temperature must be above 0"),
    ("MatryoshkaFunnel", {"embedding_norm": INF}, "embedding_norm must be above 0, but is inf"),
    ("MatryoshkaFunnel", {"kind": "flow", "stage_dims": [4, 2]}, "stage_dims must be positive and strictly"),
    ("MatryoshkaMamba", {"hidden_size": 0}, "hidden_size must be at least 1, but is 0"),
    ("MatryoshkaMamba", {"hidden_size": -64}, "hidden_size must be at least 1, but is -64"),
    ("MatryoshkaMamba", {"head_dim": 0}, "head_dim must be at least 1, but is 0"),
    ("MatryoshkaMamba", {"expand": 0}, "expand must be at least 1, but is 0"),
    ("MatryoshkaMamba", {"hidden_size": 16, "head_dim": 64}, "num_heads must be at least 1, but is 0"),
    ("MatryoshkaMamba", {"full_num_heads": 0}, "full_num_heads must be at least 1, but is 0"),
    ("MatryoshkaMamba", {"hidden_dropout_prob": 2}, "hidden_dropout_prob must be from 0 to 1, but is 2"),
    ("MatryoshkaMamba", {"time_step_min": 0.0}, "time_step_min must be above 0, but is 0.0"),
    ("MatryoshkaMamba", {"time_step_min": 0.5}, "time_step_max 0.1 is less than time_step_min 0.5"),
    ("MatryoshkaMamba", {"dim_widths": [0.25, NAN], "matryoshka_dims": [4, 8]}, "dim_widths must be above 0"),
    ("MatryoshkaGPT", {**GPT, "num_attention_heads": 0}, "num_attention_heads must be at least 1, but is 0"),
    ("MatryoshkaGPT", {**GPT, "hidden_size": 2}, "head_dim must be at least 1, but is 0"),
    ("MatryoshkaGPT", {**GPT, "hidden_act": "x"}, "hidden_act 'x' does not exist"),
    ("MatryoshkaGPT", {**GPT, "rms_norm_eps": NAN}, "rms_norm_eps must be above 0"),
    ("MatryoshkaGPT", {**GPT, "rope_parameters": {"rope_type": "linear"}}, "rope_parameters .* not complete.*factor"),
    ("FractalFormer", {**GPT, "num_attention_heads": 0}, "num_attention_heads must be at least 1, but is 0"),
    ("DeltaBert", {**DELTA, "vocab_size": 0}, "vocab_size must be at least 1, but is 0"),
    ("DeltaBert", {**DELTA, "vocab_size": 9, "pad_token_id": 9}, "pad_token_id 9 must be less than vocab_size 9"),
    ("DeltaBert", {**DELTA, "num_attention_heads": 0}, "num_attention_heads must be at least 1, but is 0"),
    ("DeltaBert", {**DELTA, "num_hidden_layers": 0}, "num_hidden_layers must be at least 1, but is 0"),
    ("DeltaBert", {**DELTA, "head_dim": -1}, "head_dim must be at least 1, but is -1"),
    ("DeltaBert", {**DELTA, "full_intermediate_size": 0}, "full_intermediate_size must be at least 1, but is 0"),
    ("DeltaBert", {**DELTA, "full_intermediate_size": 6, "budgets": [[1.0, 4, 2]]}, "less than intermediate_size 12"),
    ("DeltaBert", {**DELTA, "hidden_act": "x"}, "hidden_act 'x' does not exist"),
    ("DeltaModernBert", {**DELTA, "hidden_size": 12}, r"head_dim 3 \(by default hidden_size / .* must be even"),
    ("DeltaModernBert", {**DELTA, "intermediate_size": 0}, "intermediate_size must be at least 1, but is 0"),
    ("DeltaModernBert", {**DELTA, "mlp_dropout": -0.5}, "mlp_dropout must be from 0 to 1, but is -0.5"),
]


@pytest.mark.parametrize("system,options,message", CASES)
def test_an_argument_that_cannot_be_is_named(system, options, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        getattr(modeling, f"{system}Config")(**options)
