"""Growth of a ModernBERT, which normalises what its layers read: every size grows, the function stays."""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from .grow_tensors import WiderStream


def grow_modernbert(new: PreTrainedModel, old: PreTrainedModel, places: Sequence[int], stream: WiderStream) -> None:
    """Writes a ModernBERT, stock or Delta, into a larger one of the same class, which has random weights.

    Args:
        new, old (`PreTrainedModel`): The models; `new` is changed.
        places (`Sequence[int]`): Number of each old layer in the new model.
        stream ([`WiderStream`]): Their residual streams.
    """
    base, small = new.base_model, old.base_model
    _embeddings(base.embeddings, small.embeddings, stream)
    grown = dict(zip(places, small.layers, strict=True))
    for number, layer in enumerate(base.layers):
        if number in grown:
            _layer(layer, grown[number], stream, first=number == 0)
        else:
            for projection in (layer.attn.Wo, layer.mlp.Wo):
                stream.silence(projection)
            stream.written.update(map(id, layer.parameters()))
    stream.norm(base.final_norm, small.final_norm)
    if new is base:
        return
    is_language_model = old.get_output_embeddings() is not None
    tied = is_language_model and new.decoder.weight is base.embeddings.tok_embeddings.weight
    stream.head((new.head.dense, old.head.dense), (new.head.norm, old.head.norm), tied)
    if not is_language_model:
        stream.read(new.classifier, old.classifier)
    elif not tied:
        stream.read(new.decoder, old.decoder)
    elif old.decoder.bias is not None:
        stream.put(new.decoder.bias, old.decoder.bias)


def _embeddings(new: nn.Module, old: nn.Module, stream: WiderStream) -> None:
    table = old.tok_embeddings.weight.double()
    if stream.copies:
        stream.put(new.tok_embeddings.weight, table.repeat(1, stream.copies))
        stream.norm(new.norm, old.norm)
        return
    spread = (table.var(1, correction=0) + old.norm.eps).sqrt()
    mean = table.mean(1)
    # The mean that each token has after the norm, but for the bias: here it is known.
    carried = ((table - mean.unsqueeze(1)) * old.norm.weight.double()).mean(1) / spread
    offset = 0.0 if old.norm.bias is None else ((carried.max() + carried.min()) / 2).item()
    carried = carried - offset
    gain = stream.carrier_gain(old.norm, carried.abs().max().item())
    extra = mean.unsqueeze(1) + (carried * spread * stream.shrink / gain).outer(stream.signs.to(table.device))
    stream.put(new.tok_embeddings.weight, torch.cat((table, extra), dim=1))
    stream.carry(new.norm, old.norm, gain, offset)


def _layer(new: nn.Module, old: nn.Module, stream: WiderStream, first: bool) -> None:
    # The first layer reads the stream as it is, all others a norm of it.
    stream.read(new.attn.Wqkv, old.attn.Wqkv, blocks=3, extra="equal" if first else "zero")
    if not first:
        stream.norm(new.attn_norm, old.attn_norm)
    stream.write(new.attn.Wo, old.attn.Wo)
    stream.norm(new.mlp_norm, old.mlp_norm)
    stream.read(new.mlp.Wi, old.mlp.Wi, blocks=2)
    stream.write(new.mlp.Wo, old.mlp.Wo)
