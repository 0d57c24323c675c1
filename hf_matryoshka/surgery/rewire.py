"""Sorting the heads and feed-forward neurons of an encoder by importance, without changing what it computes."""

from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import ModelOutput

from .encoder_layers import encoder_layers
from .importance import Importance, measure_importance
from .text_batches import text_batches


def rewire(model: PreTrainedModel, importance: Importance) -> PreTrainedModel:
    """Sorts the heads and the feed-forward neurons of each layer, the most important first.

    This is the network rewiring of DynaBERT (Hou et al., arXiv:2004.04037, section 2.1): the leading part of the
    layer, which a smaller budget computes, then holds the units that matter most. The function of the whole
    model stays the same, up to the order of sums; units of equal importance keep their order.

    Rewire before a nested model is trained: the smaller budgets of one that is trained already would be others. The
    parameters stay the same objects, with the same ties, but the state of an optimizer that has taken steps is not
    sorted along.

    Args:
        model (`PreTrainedModel`):
            A BERT or ModernBERT, stock or Delta, with or without a head; changed in place.
        importance ([`Importance`]):
            A score for each head and each neuron of each layer.

    Returns:
        `PreTrainedModel`: The same model.

    Raises:
        ValueError: If the architecture is not supported, or the scores are not those of such a model; nothing is
            changed then.
    """
    layers = encoder_layers(model)
    plan = []
    for name, scores, units in (
        ("neurons", importance.neurons, [layer.neurons for layer in layers]),
        ("heads", importance.heads, [layer.heads for layer in layers]),
    ):
        if len(scores) != len(units):
            raise ValueError(
                f"importance has the {name} of {len(scores)} layers, but the model has {len(units)} layers; "
                "measure it on this model"
            )
        for index, (score, part) in enumerate(zip(scores, units, strict=True)):
            if score.shape != (part.count,):
                raise ValueError(
                    f"importance of the {name} of layer {index} has shape {tuple(score.shape)}, but the layer has "
                    f"{part.count} {name}; measure it on this model"
                )
            if not torch.isfinite(score).all():
                raise ValueError(
                    f"importance of the {name} of layer {index} is not finite; measure it in float32, and for "
                    "criterion 'gradient' give every batch a label"
                )
            plan.append((part, torch.argsort(score, descending=True, stable=True)))
    for part, order in plan:
        part.permute(order)
    return model


def rewire_by_importance(
    model: PreTrainedModel,
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    num_texts: int = 256,
    batch_size: int = 32,
    max_length: int = 128,
    criterion: str = "activation",
    loss_fn: Callable[[ModelOutput], torch.Tensor] | None = None,
) -> PreTrainedModel:
    """Measures importance on some texts, and sorts the heads and feed-forward neurons of each layer by it.

    Args:
        model (`PreTrainedModel`):
            A BERT or ModernBERT, stock or Delta, with or without a head; changed in place. Of a SentenceTransformer
            it is `model[0].auto_model`.
        texts (`Sequence[str]`):
            Texts like those that the model is for.
        tokenizer (`PreTrainedTokenizerBase`):
            The tokenizer of the model.
        num_texts (`int`, *optional*, defaults to 256):
            Number of texts to measure on, taken at even steps from all of `texts`.
        batch_size (`int`, *optional*, defaults to 32):
            Texts of a batch.
        max_length (`int`, *optional*, defaults to 128):
            Tokens of a text, at most; the rest is cut off. Never more than the positions of the model.
        criterion (`str`, *optional*, defaults to `"activation"`):
            See [`measure_importance`].
        loss_fn (`Callable`, *optional*):
            The loss for criterion `"gradient"`, which needs one, from the outputs of the model. To use labels, call
            [`measure_importance`] and [`rewire`].

    Returns:
        `PreTrainedModel`: The same model.

    Raises:
        ValueError: If the architecture is not supported, there are no texts, a number is below 1, or the tokenizer has
            more tokens than the model; nothing is changed then.
    """
    encoder_layers(model)  # the model first: it may have no config of the kind that is read below
    if criterion == "gradient" and loss_fn is None:
        raise ValueError(
            "criterion 'gradient' needs a loss_fn here, because texts have no labels; with labelled batches call "
            "measure_importance and rewire"
        )
    batches = text_batches(model, texts, tokenizer, num_texts, batch_size, max_length)
    return rewire(model, measure_importance(model, batches, criterion, loss_fn))
