"""How much each part of a Llama that a smaller doll can leave out matters."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import LlamaForCausalLM

from ..data.evaluation_mode import evaluating


@dataclass
class DecoderImportance:
    """Scores, larger for what matters more.

    Args:
        residual (`torch.Tensor` of shape `(hidden,)`): Channels of the residual stream, over all layers.
        neurons (`list[torch.Tensor]`): For each layer, its feed-forward neurons.
        values (`list[torch.Tensor]`): For each layer, of shape `(key_value_heads, head_dim)`, the channels of the
            values; their sums are the scores of the heads.
    """

    residual: torch.Tensor
    neurons: list[torch.Tensor]
    values: list[torch.Tensor]


@torch.no_grad()
def measure_decoder_importance(model: LlamaForCausalLM, batches: Iterable[dict]) -> DecoderImportance:
    r"""Measures on some texts how much each channel adds.

    The score of a channel is the mean size of what it adds to the outputs of the projections that read it,
    \\( E\,|a_c| \cdot \|W[:, c]\| \\), over the real tokens; that of a channel of the residual stream is the sum over
    the projections that read it after a norm, each as a share of all channels' (Minitron, arXiv 2407.14679, section
    2.2, ranks by the mean size of the normed activations alone).

    Args:
        model (`LlamaForCausalLM`): The model.
        batches (`Iterable[dict]`): `input_ids` and optionally `attention_mask`, both `(texts, length)`.

    Raises:
        ValueError: If the batches hold no token.
    """
    config, layers = model.config, model.model.layers
    readers = {f"residual {number}": layer.self_attn.q_proj for number, layer in enumerate(layers)}
    readers |= {f"network {number}": layer.mlp.gate_proj for number, layer in enumerate(layers)}
    readers |= {f"head {len(layers)}": model.lm_head}
    readers |= {f"values {number}": layer.self_attn.o_proj for number, layer in enumerate(layers)}
    readers |= {f"neurons {number}": layer.mlp.down_proj for number, layer in enumerate(layers)}
    sizes = {name: torch.zeros(reader.in_features, dtype=torch.float64) for name, reader in readers.items()}
    count = 0
    with evaluating(model):
        for batch in batches:
            mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
            real = mask.bool().to(model.device)
            with _inputs(readers, real, sizes):
                model(**{name: value.to(model.device) for name, value in batch.items()}, use_cache=False)
            count += int(real.sum())
    if not count:
        raise ValueError("batches hold no token to measure on; give at least one text")
    residual = torch.zeros(config.hidden_size, dtype=torch.float64)
    for number, layer in enumerate(layers):
        attention = (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)
        for name, read_by in (("residual", attention), ("network", (layer.mlp.gate_proj, layer.mlp.up_proj))):
            score = sizes[f"{name} {number}"] * _columns(*read_by)
            residual += score / score.sum()
    score = sizes[f"head {len(layers)}"] * _columns(model.lm_head)
    residual += score / score.sum()
    groups = config.num_key_value_heads
    neurons, values = [], []
    for number, layer in enumerate(layers):
        neurons.append((sizes[f"neurons {number}"] * _columns(layer.mlp.down_proj)).float() / count)
        score = (sizes[f"values {number}"] * _columns(layer.self_attn.o_proj)).float() / count
        # The channel of a value is read by all heads that share it.
        values.append(score.view(groups, -1, layer.self_attn.head_dim).sum(1))
    return DecoderImportance(residual.float(), neurons, values)


def _columns(*layers: nn.Linear) -> torch.Tensor:
    """The norm of each column of weights that lie one below the other."""
    return sum(layer.weight.detach().double().square().sum(0) for layer in layers).sqrt().cpu()


@contextmanager
def _inputs(readers: dict[str, nn.Linear], real: torch.Tensor, sizes: dict[str, torch.Tensor]) -> Iterator[None]:
    """Adds the absolute inputs of each layer at the real tokens to `sizes`."""

    def hook(name: str):
        def look(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            sizes[name] += args[0][real].abs().sum(0).double().cpu()

        return look

    handles = [reader.register_forward_pre_hook(hook(name)) for name, reader in readers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
