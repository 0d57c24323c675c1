"""One small config of every system, valid variations of it, and values that no argument expects."""

import dataclasses

from huggingface_hub.errors import StrictDataclassError
from hypothesis import strategies as st

from hf_matryoshka import modeling


# What a config may raise: a validator's `ValueError` comes wrapped in a sentence that names the field or validator.
REFUSED = (ValueError, StrictDataclassError)
TOKENS = {"vocab_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 16}
DELTA = TOKENS | {
    "hidden_size": 16,
    "intermediate_size": 12,
    "num_hidden_layers": 3,
    "pad_token_id": 0,
    "budgets": [[0.5, 4, 2], [1.0, 4, 3]],
}
BASES = {
    "MatryoshkaAdaptor": {"embedding_dim": 12, "matryoshka_dims": [3, 6, 12], "num_reflections": 4},
    "MatryoshkaFunnel": {
        "embedding_dim": 16,
        "matryoshka_dims": [2, 4, 8],
        "num_couplings": 2,
        **dict.fromkeys(("encoder_sizes", "predictor_sizes", "decoder_sizes", "coupling_sizes"), [8]),
    },
    "MatryoshkaGPT": TOKENS | {"hidden_size": 32, "num_key_value_heads": 2, "intermediate_size": 24},
    "FractalFormer": TOKENS | {"hidden_size": 32, "intermediate_size": 24},
    "MatryoshkaMamba": {
        "vocab_size": 40,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "head_dim": 8,
        "state_size": 4,
        "chunk_size": 4,
        "segment_length": 8,
        "block_size": 4,
        "widths": [0.25, 0.5, 1.0],
        "matryoshka_dims": [4, 8, 12],
        "intermediate_size": 8,
    },
    "DeltaBert": DELTA,
    "DeltaModernBert": DELTA
    | {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2, "local_attention": 4},
}
ON_VECTORS = ("MatryoshkaAdaptor", "MatryoshkaFunnel")


def config_class(system):
    return getattr(modeling, f"{system}Config")


def model_class(system):
    return getattr(modeling, f"{system}Model")


def make_config(system, **options):
    return config_class(system)(**{**BASES[system], **options})


def fields(system):
    """The arguments that a system documents, and those of the stock config that its models read."""
    classes = [kind for kind in config_class(system).__mro__ if kind.__module__.startswith(modeling.__name__)]
    own = {name for kind in classes for name in vars(kind).get("__annotations__", ())}
    known = {item.name for item in dataclasses.fields(config_class(system))}
    return sorted((own | set(BASES[system])) & known)


WORDS = "mlp linear orthogonal permutation residual cascade flow sphere euclidean causal bidirectional full".split()
WORDS += "joint output block_bidirectional heads head_dim nested prefix gpt2 llama gelu".split()
NUMBERS = st.integers(-3, 33) | st.sampled_from(
    [0.0, 0.25, 0.5, 1.0, -0.5, 2.5, float("nan"), float("inf"), -float("inf"), 1e-320, True, False]
)
SCALARS = NUMBERS | st.sampled_from([None, "", "x", *WORDS])
BUDGETS = st.lists(
    st.lists(NUMBERS | st.lists(NUMBERS, max_size=3), min_size=2, max_size=4)
    | st.tuples(st.sampled_from([0.25, 0.5, 1.0]), st.integers(0, 5), st.integers(0, 4)).map(list),
    max_size=3,
)
ROPES = st.fixed_dictionaries(
    {},
    optional={
        "rope_type": st.sampled_from(["default", "linear", "llama3", "dynamic", "yarn", "x", ""]),
        "rope_theta": NUMBERS | st.just(1e4),
        "factor": NUMBERS,
    },
)
LISTS = st.lists(SCALARS, max_size=4) | st.lists(st.integers(-1, 33), max_size=4).map(sorted)
ODD = SCALARS | LISTS | BUDGETS | ROPES
OF_TYPE = {bool: st.booleans(), int: st.integers(-3, 65), float: NUMBERS, str: st.sampled_from(["", "x", *WORDS])}
OF_TYPE |= {list: LISTS, dict: ROPES}


def values(system, name):
    """Values for an argument: mostly of the type that it has by default, right or wrong."""
    if name == "budgets":
        return BUDGETS
    of_type = OF_TYPE.get(type(getattr(make_config(system), name)))
    return ODD if of_type is None else of_type | of_type | ODD
