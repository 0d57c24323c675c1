"""Small random Matryoshka GPTs."""

import torch

from hf_matryoshka.modeling import MatryoshkaGPTConfig, MatryoshkaGPTForCausalLM


SIZES = {"vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "pad_token_id": 0}
SIZES |= {"num_key_value_heads": 2, "max_position_embeddings": 128, "eos_token_id": None, "initializer_range": 0.2}
# Every axis, each order of frequencies, each way to make heads smaller.
KINDS = {
    "head_dim": {},
    "heads": {"nested_heads": "heads", "num_key_value_heads": 4, "rope_order": "prefix"},
    "prefix": {"rope_order": "prefix", "doll_sizes": [24, 40, 64], "num_attention_heads": 2, "head_dim": 16},
    "layers": {"doll_layers": [2, 3, 3], "layer_order": [0, 2, 1], "attention_bias": True, "mlp_bias": True},
    "depth": {"doll_sizes": [64, 64], "doll_layers": [1, 3], "tie_word_embeddings": False},
    "columns": {"doll_intermediate_sizes": [16, 100, 256], "head_dim": 24, "doll_sizes": [16, 32, 64]},
    "gpt2": {"blocks": "gpt2", "num_key_value_heads": 4},
    "groups": {"norm_groups": 2, "doll_sizes": [32, 64], "nested_heads": "heads", "glue": True},
    "output": {"nesting": "output"},
    "llama3": {
        "rope_parameters": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
            "rope_theta": 5e5,
        }
    },
    "scaled": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5}},
}


def make(kind="head_dim", **options):
    """A language model whose weights are away from where they start."""
    config = MatryoshkaGPTConfig(**{**SIZES, **KINDS[kind], **options})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MatryoshkaGPTForCausalLM(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def prompts():
    """Two texts, one with padding before it, and their mask."""
    ids = torch.randint(3, 50, (2, 9), generator=torch.Generator().manual_seed(1))
    ids[0, :3] = 0
    return ids, (ids != 0).long()
