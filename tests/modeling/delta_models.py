"""Small random Delta encoders, and what each is checked against."""

import torch
from transformers import (
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    ModernBertForMaskedLM,
    ModernBertForSequenceClassification,
    ModernBertModel,
)

import hf_matryoshka


STOCK = {
    "DeltaBertModel": BertModel,
    "DeltaBertForMaskedLM": BertForMaskedLM,
    "DeltaBertForSequenceClassification": BertForSequenceClassification,
    "DeltaModernBertModel": ModernBertModel,
    "DeltaModernBertForMaskedLM": ModernBertForMaskedLM,
    "DeltaModernBertForSequenceClassification": ModernBertForSequenceClassification,
}
HEADS = list(STOCK)
# Three levels each; "mixed" has other widths in each layer, also at its largest.
BUDGETS = {
    "stock": [[0.25, 4, 2], [0.5, 4, 3], [1.0, 4, 5]],
    "heads": [[0.25, 1, 2], [0.5, 3, 4], [1.0, 4, 5]],
    "mixed": [[[0.25, 0.5], 1, 2], [[0.5, 0.5, 0.25], 2, 3], [[1.0, 0.5, 0.75, 0.25, 1.0], 4, 5]],
    "joint": [[0.25, 1, 2], [0.5, 3, 4], [1.0, 4, 5]],
    "joint-mixed": [[[0.5, 0.25], 2, 2], [[0.5, 0.5, 1.0], 3, 3], [1.0, 4, 5]],
    "ordered": [[0.25, 4, 2], [0.5, 4, 3], [1.0, 4, 5]],
    "joint-ordered-mixed": [[[0.5, 0.25], 2, 2], [[0.5, 0.5, 1.0], 3, 3], [1.0, 4, 5]],
    "conditioned": [[0.25, 4, 2], [0.5, 4, 3], [1.0, 4, 5]],
    "joint-conditioned-ordered": [[0.25, 1, 2], [0.5, 3, 4], [1.0, 4, 5]],
}
# That of the names with "ordered": layers 0 and 4, then 2.
LAYER_ORDER = [0, 4, 2, 1, 3]
# Names of those whose levels are stock without padding.
EXACT = ("stock", "joint", "ordered", "conditioned", "joint-conditioned-ordered")


def family(name):
    """`"DeltaBert"` or `"DeltaModernBert"`."""
    return "DeltaModernBert" if "ModernBert" in name else "DeltaBert"


def make_config(name, budgets="heads", **fields):
    config_class = getattr(hf_matryoshka, f"{family(name)}Config")
    # Far from the default spread, so that texts get different vectors.
    sizes = {"vocab_size": 99, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 5, "num_labels": 3}
    sizes |= {"initializer_range": 0.2, "pad_token_id": 0, "full_intermediate_size": 48, "intermediate_size": 48}
    if family(name) == "DeltaModernBert":
        sizes |= {"local_attention": 6, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    else:
        sizes |= {"max_position_embeddings": 64}
    if isinstance(budgets, str):
        sizes |= {"residual": "joint" if budgets.startswith("joint") else "full"}
        sizes |= {"layer_order": LAYER_ORDER} if "ordered" in budgets else {}
        # Norms and gates of each budget.
        sizes |= dict.fromkeys(("budget_norms", "delta_gates"), "conditioned" in budgets)
        budgets = BUDGETS[budgets]
    return config_class(**{**sizes, "budgets": budgets, **fields})


def make(name, budgets="heads", attn_implementation=None, **fields):
    """A model with weights away from where they start, biases and norms among them."""
    config = make_config(name, budgets, **fields)
    if attn_implementation is not None:
        config._attn_implementation = attn_implementation
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(hf_matryoshka, name)(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def inputs(length=12):
    """Two texts, one of them padded."""
    ids = torch.randint(3, 99, (2, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, length - 4 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def outputs(model, level=None, length=12):
    """The first output, without what is computed at padding."""
    given = inputs(length)
    kwargs = {} if level is None else {"level": level}
    output = model(**given, **kwargs)[0]
    return output[given["attention_mask"].bool()] if output.ndim == 3 else output
