"""Growth of a BERT, which normalises its residual stream itself: every size grows, the function stays."""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN

from .grow_tensors import WiderStream


# Feed-forward neurons that pass two numbers on, where the width is no multiple.
PASSING_NEURONS = 4


def passing_neurons(config: PreTrainedConfig, hidden_size: int) -> int:
    """How many feed-forward neurons a wider BERT needs beside those of the old one.

    Raises:
        ValueError: If it needs some and the activation cannot pass a number on.
    """
    if hidden_size % config.hidden_size == 0:
        return 0
    numbers = torch.linspace(-6, 6, 25)
    act = ACT2FN[config.hidden_act]
    if not torch.allclose(act(numbers) - act(-numbers), numbers, atol=1e-5):
        raise ValueError(
            f"hidden_act {config.hidden_act!r} cannot pass numbers on, as growth of a BERT must where hidden_size is "
            f"no multiple of {config.hidden_size}; give a multiple"
        )
    return PASSING_NEURONS


def grow_bert(new: PreTrainedModel, old: PreTrainedModel, places: Sequence[int], stream: WiderStream) -> None:
    """Writes a BERT, stock or Delta, into a larger one of the same class, which has random weights.

    Args:
        new, old (`PreTrainedModel`): The models; `new` is changed.
        places (`Sequence[int]`): Number of each old layer in the new model.
        stream ([`WiderStream`]): Their residual streams.
    """
    base, small = new.base_model, old.base_model
    _embeddings(base.embeddings, small.embeddings, stream)
    last = len(small.encoder.layer) - 1
    for index, (place, layer) in enumerate(zip(places, small.encoder.layer, strict=True)):
        _layer(base.encoder.layer[place], layer, stream, last=index == last)
    for place in range(len(base.encoder.layer)):
        if place not in places:
            norm = base.embeddings.LayerNorm if place == 0 else base.encoder.layer[place - 1].output.LayerNorm
            _insert(base.encoder.layer[place], norm, stream)
    if base.pooler is not None:
        stream.read(base.pooler.dense, small.pooler.dense, extra="equal")
    if new is base:
        return
    if old.get_output_embeddings() is None:
        # The further features of the pooler are random, so they must not count yet.
        stream.put(new.classifier.weight, torch.zeros_like(new.classifier.weight))
        new.classifier.weight[:, : stream.narrow] = old.classifier.weight
        stream.put(new.classifier.bias, old.classifier.bias)
        return
    head, narrow = new.cls.predictions, old.cls.predictions
    tied = head.decoder.weight is base.embeddings.word_embeddings.weight
    norms = head.transform.LayerNorm, narrow.transform.LayerNorm
    stream.head((head.transform.dense, narrow.transform.dense), norms, tied)
    if not tied:
        stream.read(head.decoder, narrow.decoder)
    stream.put(head.bias, narrow.bias)


def _embeddings(new: nn.Module, old: nn.Module, stream: WiderStream) -> None:
    gain, tilt = _carrying(old.LayerNorm, stream)
    for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        table = old.get_submodule(name).weight
        stream.put(new.get_submodule(name).weight, stream.spread(table.T, tilt).T)
    if stream.copies:
        stream.norm(new.LayerNorm, old.LayerNorm)
    else:
        stream.carry(new.LayerNorm, old.LayerNorm, gain)


def _carrying(norm: nn.LayerNorm, stream: WiderStream) -> tuple[float, torch.Tensor | None]:
    r"""The gain of extra channels that carry the mean after a norm, and the linear form by which they get it:
    \\( \frac{1}{m} \sum_i \gamma_i (v_i - \bar{v}) \\), over the gain."""
    if stream.copies:
        return 1.0, None
    spread = norm.weight.double() - norm.weight.double().mean()
    # By the inequality of Cauchy and Schwarz no text has more.
    gain = stream.carrier_gain(norm, spread.square().mean().sqrt().item())
    return gain, spread * stream.shrink / (gain * stream.narrow)


def _layer(new: nn.Module, old: nn.Module, stream: WiderStream, last: bool) -> None:
    """One layer. In its input the extra channels are the mean of the leading ones, between its parts they are 0, and
    after it they are the mean again, but 0 after the last layer."""
    for name in ("query", "key", "value"):
        stream.read(new.attention.self.get_submodule(name), old.attention.self.get_submodule(name), extra="equal")
    stream.write(new.attention.output.dense, old.attention.output.dense)
    # The next norm would multiply by its large gain what comes through this one.
    stream.norm(new.attention.output.LayerNorm, old.attention.output.LayerNorm, closed=True)
    if stream.copies:
        stream.read(new.intermediate.dense, old.intermediate.dense)
        stream.write(new.output.dense, old.output.dense)
        stream.norm(new.output.LayerNorm, old.output.LayerNorm)
        return
    gain, tilt = _carrying(old.output.LayerNorm, stream)
    if last:
        tilt = torch.zeros_like(tilt)
    stream.read(new.intermediate.dense, old.intermediate.dense, first=PASSING_NEURONS)
    stream.write(new.output.dense, old.output.dense, PASSING_NEURONS, tilt)
    _pass(new.intermediate.dense, new.output.dense, tilt, stream)
    if last:
        stream.norm(new.output.LayerNorm, old.output.LayerNorm)
    else:
        stream.carry(new.output.LayerNorm, old.output.LayerNorm, gain)


def _pass(inner: nn.Linear, outer: nn.Linear, tilt: torch.Tensor, stream: WiderStream) -> None:
    """The first neurons write what the extra channels need of the layer's residual stream, which those channels do not
    have: its mean, and its product with `tilt`. Two neurons pass a number on, as gelu(z) - gelu(-z) = z."""
    mean = torch.full_like(tilt, 1 / stream.narrow)
    for number, (form, signs) in enumerate(((mean, torch.ones_like(stream.signs)), (tilt, stream.signs))):
        length = form.norm().item()
        if length:
            inner.weight[2 * number, : stream.narrow] = form / length
        rows = inner.weight[2 * number : 2 * number + 2]
        rows[1] = -rows[0]
        outer.weight[stream.narrow :, 2 * number] = length * signs
        outer.weight[stream.narrow :, 2 * number + 1] = -length * signs
    inner.bias[:PASSING_NEURONS] = 0


def _insert(layer: nn.Module, before: nn.LayerNorm, stream: WiderStream) -> None:
    """A new layer that gives on what it gets. It cannot undo the gains of the norm before it, so it takes them over:
    that norm gives standardised numbers, which the two norms of the layer leave as they are, and the second one then
    multiplies."""
    for projection in (layer.attention.output.dense, layer.output.dense):
        stream.silence(projection)
    layer.output.LayerNorm.weight.copy_(before.weight)
    layer.output.LayerNorm.bias.copy_(before.bias)
    before.weight.fill_(1)
    before.bias.zero_()
    stream.written.update(map(id, layer.parameters()))
