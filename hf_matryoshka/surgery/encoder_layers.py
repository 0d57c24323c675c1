"""Where the weights of the attention heads and feed-forward neurons of BERT and ModernBERT are."""

from collections import Counter
from dataclasses import dataclass

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import (
    BertConfig,
    BertPreTrainedModel,
    ModernBertConfig,
    ModernBertPreTrainedModel,
    PreTrainedModel,
)


@dataclass(frozen=True)
class ParallelUnits:
    """The heads of one layer, or its feed-forward neurons: the layer adds up what each of them gives, so that their
    order means nothing.

    Args:
        inputs (`tuple[nn.Linear, ...]`): Projections whose rows belong to the units.
        blocks (`int`): Projections that lie one below the other in each of `inputs`, as in a fused `Wqkv` or `Wi`.
        output (`nn.Linear`): Projection whose columns belong to the units.
        size (`int`): Rows of a block, and columns of `output`, of one unit: the width of a head; 1 for a neuron.
    """

    inputs: tuple[nn.Linear, ...]
    blocks: int
    output: nn.Linear
    size: int

    @property
    def count(self) -> int:
        """Number of units."""
        return self.output.in_features // self.size

    @torch.no_grad()
    def permute(self, order: torch.Tensor) -> None:
        """Puts unit `order[i]` at place `i`, in place.

        Args:
            order (`torch.LongTensor` of shape `(count,)`): A permutation.
        """
        order = order.to(self.output.weight.device)
        for layer in self.inputs:
            for tensor in (layer.weight, layer.bias):
                if tensor is not None:
                    units = tensor.unflatten(0, (self.blocks, self.count, self.size))
                    tensor.copy_(units[:, order].flatten(0, 2))
        columns = self.output.weight.unflatten(1, (self.count, self.size))
        self.output.weight.copy_(columns[:, order].flatten(1, 2))


@dataclass(frozen=True)
class EncoderLayer:
    """The units of one layer of an encoder.

    Args:
        heads (`ParallelUnits`): Its attention heads.
        neurons (`ParallelUnits`): Its feed-forward neurons.
    """

    heads: ParallelUnits
    neurons: ParallelUnits


def encoder_layers(model: PreTrainedModel) -> list[EncoderLayer]:
    """The layers of a BERT or ModernBERT, first to last; of the Delta encoders, those of the full size.

    Args:
        model (`PreTrainedModel`): The encoder, with or without a head on top.

    Raises:
        ValueError: If the architecture is another, the model has unmerged adapters, or its weights cannot be moved:
            quantised, on the meta device, or shared by two layers.
    """
    if any(isinstance(part, (PeftModel, BaseTunerLayer)) for part in model.modules()):
        raise ValueError(
            f"{type(model).__name__} has PEFT adapters, whose weights would stay as they are; merge them "
            "first, with `model.merge_and_unload()`"
        )
    if isinstance(model, BertPreTrainedModel):
        layers = [_bert_layer(layer, model.config) for layer in model.base_model.encoder.layer]
    elif isinstance(model, ModernBertPreTrainedModel):
        layers = [_modernbert_layer(layer, model.config) for layer in model.base_model.layers]
    else:
        raise ValueError(
            f"{type(model).__name__} is not supported; give a BERT or a ModernBERT of transformers, a DeltaBert or a "
            "DeltaModernBert, or `model[0].auto_model` of a SentenceTransformer that is built on one of them"
        )
    _validate_weights(model, layers)
    return layers


def _bert_layer(layer: nn.Module, config: BertConfig) -> EncoderLayer:
    attention, output = layer.attention.self, layer.attention.output.dense
    head_dim = output.in_features // config.num_attention_heads
    heads = ParallelUnits((attention.query, attention.key, attention.value), 1, output, head_dim)
    return EncoderLayer(heads, ParallelUnits((layer.intermediate.dense,), 1, layer.output.dense, 1))


def _modernbert_layer(layer: nn.Module, config: ModernBertConfig) -> EncoderLayer:
    head_dim = layer.attn.Wo.in_features // config.num_attention_heads
    # Wqkv = [query; key; value] and Wi = [input; gate].
    heads = ParallelUnits((layer.attn.Wqkv,), 3, layer.attn.Wo, head_dim)
    return EncoderLayer(heads, ParallelUnits((layer.mlp.Wi,), 2, layer.mlp.Wo, 1))


def _validate_weights(model: PreTrainedModel, layers: list[EncoderLayer]):
    groups = [units for layer in layers for units in (layer.heads, layer.neurons)]
    projections = [projection for units in groups for projection in (*units.inputs, units.output)]
    modules = {id(module): name for name, module in model.named_modules()}
    own = {id(parameter) for parameter in model.parameters()}
    uses = Counter(id(projection.weight) for projection in projections)
    for projection in projections:
        name, weight = modules[id(projection)], projection.weight
        if not isinstance(projection, nn.Linear) or id(weight) not in own:
            raise ValueError(f"{name} is no linear layer with a weight of its own; load the model as it was published")
        if weight.is_meta or not weight.is_floating_point():
            raise ValueError(
                f"the weight of {name} is {'on the meta device' if weight.is_meta else f'quantised ({weight.dtype})'} "
                "and cannot be changed; load the model with its weights in a floating-point type"
            )
        if uses[id(weight)] > 1:
            raise ValueError(
                f"the weight of {name} is shared with another layer, but each needs an order of its own; untie them"
            )
