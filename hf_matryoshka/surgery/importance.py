"""How much each attention head and feed-forward neuron of an encoder matters."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from ..data.evaluation_mode import evaluating
from .encoder_layers import ParallelUnits, encoder_layers


CRITERIA = ("activation", "gradient")
# What the encoder itself reads, without a head and its labels.
_ENCODER_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds")
# Arguments of the Delta encoders with which not all units run.
_PARTIAL_INPUTS = ("level", "layers")


@dataclass
class Importance:
    """Scores of the units of an encoder, larger for those that matter more; comparable within a layer only.

    Args:
        neurons (`list[torch.Tensor]`): For each layer, the scores of its feed-forward neurons.
        heads (`list[torch.Tensor]`): For each layer, the scores of its attention heads.
    """

    neurons: list[torch.Tensor]
    heads: list[torch.Tensor]


def measure_importance(
    model: PreTrainedModel,
    batches: Iterable[dict],
    criterion: str = "activation",
    loss_fn: Callable[[ModelOutput], torch.Tensor] | None = None,
) -> Importance:
    r"""Measures how much each head and each feed-forward neuron matters on some texts.

    With `"activation"` the score is the mean size of what a unit adds to the residual stream, over the real tokens:
    \\( E\,|a_c| \cdot \|W_o[:, c]\| \\) for the activation `a_c` of a neuron, \\( E\,\|W_o[:, h]\, o_h\| \\) for the
    output `o_h` of a head. It needs neither labels nor a gradient.

    With `"gradient"` it is the change of the loss, to first order, when the unit is removed:
    \\( E\,|\sum_t a_{t}^\top \partial L / \partial a_{t}| \\), the sum over the tokens of a text and the mean over the
    texts, which is the gradient of a mask at 1 on the unit. For heads this is DynaBERT's score (Hou et al.,
    arXiv:2004.04037, section 2.1, after Michel et al., arXiv:1905.10650, eq. 2, who take the mean over texts, too, so
    that the size of the batches does not matter). For neurons DynaBERT's code sums `|w * dL/dw|` of the rows before
    and of the column behind a neuron. The second term is this mask gradient, exactly; the first is a second estimate
    of the same removal, which rests on the slope of the activation, has no single form for gated neurons, and needs
    the gradient of weights. It is left out, so that frozen models can be measured and no `.grad` is touched.

    The model is measured at its full size and in evaluation mode; each of its modules is then put back into the mode
    that it was in.

    Args:
        model (`PreTrainedModel`):
            A BERT or ModernBERT, stock or Delta, with or without a head.
        batches (`Iterable[dict]`):
            Inputs of the model, each batch a `dict` of tensors on any device. Tokens at which `attention_mask`
            is 0 count for nothing.
        criterion (`str`, *optional*, defaults to `"activation"`):
            `"activation"` or `"gradient"`.
        loss_fn (`Callable`, *optional*):
            For `"gradient"`: the loss of a batch from the outputs of the model. By default the loss of the head of
            the model for the `labels` in the batches.

    Returns:
        [`Importance`]: float32, on the CPU.

    Raises:
        ValueError: If the model or the criterion is not supported, `batches` is empty or has no real token, a batch is
            not as described, or there is no loss for `"gradient"`.
    """
    layers = encoder_layers(model)
    if criterion not in CRITERIA:
        raise ValueError(f"criterion {criterion!r} does not exist; choose one of {', '.join(CRITERIA)}")
    if loss_fn is not None and criterion != "gradient":
        raise ValueError(f"loss_fn is of no use to criterion {criterion!r}; leave it out, or choose 'gradient'")
    units = [part for layer in layers for part in (layer.heads, layer.neurons)]
    with evaluating(model):
        if criterion == "activation":
            scores = _contributions(model, units, batches)
        else:
            scores = _mask_gradients(model, units, batches, loss_fn)
    return Importance(neurons=scores[1::2], heads=scores[0::2])


@torch.no_grad()
def _contributions(model: PreTrainedModel, units: list[ParallelUnits], batches: Iterable[dict]) -> list[torch.Tensor]:
    totals = [torch.zeros(part.count, device=part.output.weight.device) for part in units]
    # |W a|^2 = a' (W'W) a, which is far smaller than W a.
    weights = [part.output.weight.float().unflatten(1, (part.count, part.size)) for part in units]
    grams = [torch.einsum("ous,our->usr", weight, weight) for weight in weights]
    tokens = 0

    def add(index: int, hidden: torch.Tensor):
        given = hidden[real.to(hidden.device)].float().unflatten(-1, (units[index].count, units[index].size))
        squares = torch.einsum("tus,usr,tur->tu", given, grams[index], given)
        totals[index] += squares.clamp_min(0).sqrt().sum(0)

    for batch in batches:
        inputs, real = _prepare(model, batch)
        # The encoder alone: a head over the vocabulary would cost more than all layers.
        inputs = {name: inputs[name] for name in _ENCODER_INPUTS if name in inputs}
        flat = {name: value.flatten(0, -3 if name == "inputs_embeds" else -2) for name, value in inputs.items()}
        with _watching(units, real, add):
            model.base_model(**flat)
        tokens += int(real.sum())
    if tokens == 0:
        raise ValueError("batches hold no token to measure on; give at least one text")
    return [total.cpu() / tokens for total in totals]


def _mask_gradients(
    model: PreTrainedModel, units: list[ParallelUnits], batches: Iterable[dict], loss_fn: Callable | None
) -> list[torch.Tensor]:
    totals = [torch.zeros(part.count, device=part.output.weight.device) for part in units]
    texts = 0

    def keep(index: int, hidden: torch.Tensor):
        # In a frozen model nothing before the first unit asks for a gradient.
        seen[index] = hidden if hidden.requires_grad else hidden.requires_grad_()

    for batch in batches:
        inputs, real = _prepare(model, batch)
        seen: list[torch.Tensor | None] = [None] * len(units)
        with torch.enable_grad(), _watching(units, real, keep):
            outputs = model(**inputs, return_dict=True)
            loss = outputs.get("loss") if loss_fn is None else loss_fn(outputs)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise ValueError(
                "criterion 'gradient' needs a loss; put labels into the batches of a model with a head, or give a "
                "loss_fn that returns one number, with its gradient, from the outputs of the model"
            )
        # Layers that the loss does not depend on score 0.
        gradients = torch.autograd.grad(loss, seen, allow_unused=True, materialize_grads=True)
        for total, part, hidden, gradient in zip(totals, units, seen, gradients, strict=True):
            products = hidden.detach().float() * gradient.float() * real[..., None].to(hidden.device)
            by_text = products.sum(1).unflatten(-1, (part.count, part.size)).sum(-1)
            # The loss is a mean over the batch: undone, so that all texts count alike.
            total += by_text.abs().sum(0) * len(real)
        texts += len(real)
    if texts == 0:
        raise ValueError("batches is empty; give at least one batch of model inputs")
    return [total.cpu() / texts for total in totals]


def _prepare(model: PreTrainedModel, batch: dict) -> tuple[dict, torch.Tensor]:
    """The inputs on the device of the model, and which tokens are real, of shape `(texts, length)`."""
    if not isinstance(batch, Mapping):
        raise ValueError(f"batches must be dicts of model inputs, not {type(batch).__name__}; give a list of them")
    partial = [name for name in _PARTIAL_INPUTS if batch.get(name) is not None]
    if partial:
        raise ValueError(f"importance is measured at the full size; take {' and '.join(partial)} out of the batches")
    inputs = {
        name: value.to(model.device) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
        if value is not None
    }
    if ("input_ids" in inputs) == ("inputs_embeds" in inputs):
        raise ValueError(f"a batch has {', '.join(inputs) or 'nothing'}; give input_ids or inputs_embeds")
    shape = inputs["input_ids"].shape if "input_ids" in inputs else inputs["inputs_embeds"].shape[:-1]
    mask = inputs.get("attention_mask", torch.ones(shape))
    if not isinstance(mask, torch.Tensor) or mask.shape != shape:
        found = tuple(mask.shape) if isinstance(mask, torch.Tensor) else type(mask).__name__
        raise ValueError(
            f"attention_mask must have the shape {tuple(shape)} of the tokens, 0 at padding, but is {found}"
        )
    return inputs, mask.bool().flatten(0, -2)


@contextmanager
def _watching(
    units: list[ParallelUnits], real: torch.Tensor, see: Callable[[int, torch.Tensor], None]
) -> Iterator[None]:
    """Hands `see` what enters the output projection of each of the units: all that they give."""

    def hook(index: int):
        def look(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            if args[0].shape[:-1] != real.shape:
                raise ValueError(
                    f"a layer got tokens of shape {tuple(args[0].shape[:-1])}, not {tuple(real.shape)}; set "
                    "chunk_size_feed_forward of its config to 0"
                )
            see(index, args[0])

        return look

    handles = [part.output.register_forward_pre_hook(hook(index)) for index, part in enumerate(units)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
