"""A larger encoder that computes what a small one computes."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import (
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    ModernBertForMaskedLM,
    ModernBertForSequenceClassification,
    ModernBertModel,
    PreTrainedConfig,
    PreTrainedModel,
)

from .. import modeling
from .grow_bert import grow_bert
from .grow_modernbert import grow_modernbert
from .grow_sizes import grown_config, is_bert
from .grow_tensors import WiderStream


STOCK = {
    cls.__name__: cls
    for cls in (
        BertModel,
        BertForMaskedLM,
        BertForSequenceClassification,
        ModernBertModel,
        ModernBertForMaskedLM,
        ModernBertForSequenceClassification,
    )
}
HEADS = ("closest", "exact")
Model = TypeVar("Model", bound=PreTrainedModel)


def grow(
    model: Model,
    config: PreTrainedConfig | None = None,
    *,
    hidden_size: int | None = None,
    num_attention_heads: int | None = None,
    num_hidden_layers: int | None = None,
    intermediate_size: int | None = None,
    new_layers: Sequence[int] | None = None,
    budgets: Sequence[Sequence] | None = None,
    head: str = "closest",
    tolerance: float = 2e-6,
) -> Model:
    r"""A larger model of the same class that computes the same as a small one, to start training from.

    In evaluation mode and float32 the leading channels of the hidden states, also of a pooler, are those of the small
    model, to about 1e-5, and so are the classes of a BERT classifier. The other channels of the output are

    - copies of the leading ones where the new `hidden_size` is a multiple of the old one; then the logits of every
      head are the same, too;
    - 0 at other widths, which must be larger by an even number. Before the end, and at the end of the shallower levels
      of a Delta BERT, they are the mean of the leading ones.

    The further features of a pooler are random. The norm of a prediction head (of masked language models, and of
    classifiers on ModernBERT) comes after its activation, so that no head of another width computes the same unless
    the width is a multiple. `head="closest"` then repeats some of its units: with random weights the logits were off
    by 8% of their spread at 32 to 48 channels, 4% at 128 to 192 and 2% at 512 to 768.

    What is new is random, from the generator of torch. Only what would change the output is 0, such as the output
    columns of new heads, so that all of it gets a gradient within three steps. This is Net2Net (Chen et al., arXiv
    1511.05641) with the average expansion of LEMON (Wang et al., arXiv 2310.07999), see [`WiderStream`]; LEMON has
    it for norms before the layers and grows BERT to multiples only.

    - At widths that are no multiple the epsilon of the norms shrinks with the share of the old channels. Some numbers
      are carried in extra channels under a large gain: a larger `tolerance` makes these gains smaller and the first
      steps of training calmer. A BERT needs 4 more feed-forward neurons than the small one has.
    - A new layer of a BERT takes over the gains of the norm before it, which standardises instead. This is exact but
      for the epsilon of the norms (1e-12 in BERT).
    - The levels of a Delta model stay levels, each as exact as the whole, under names that say their share of the new
      width. Those of a Delta BERT that have the layer before new layers get these, too.

    Args:
        model (`PreTrainedModel`):
            A BERT or ModernBERT, stock or Delta: the encoder, a masked language model or a sequence classifier. It is
            left alone.
        config (`PreTrainedConfig`, *optional*):
            A config of the same class with the new sizes, budgets and layer types, instead of the arguments.
        hidden_size (`int`, *optional*):
            The width of the hidden states. A stock model has as many heads as fit into it.
        num_attention_heads (`int`, *optional*):
            Heads; their width stays. In a stock model, and with `residual="joint"`, they decide the hidden size.
        num_hidden_layers (`int`, *optional*):
            Layers.
        intermediate_size (`int`, *optional*):
            Feed-forward width of every layer.
        new_layers (`Sequence[int]`, *optional*):
            Where the new layers are, as numbers in the new model; by default after the last. The others keep their
            kind of attention and its rotary frequencies; a new one has that which the pattern of the model has there.
        budgets (`Sequence[Sequence]`, *optional*):
            Levels of a Delta model, instead of those that the small model has and the full size.
        head (`str`, *optional*, defaults to `"closest"`):
            `"exact"` refuses to make a prediction head that differs.
        tolerance (`float`, *optional*, defaults to 2e-6):
            Largest relative change that a norm may see because of numbers that extra channels carry.

    Returns:
        `PreTrainedModel`: The larger model, on the same device, in the same mode and type.

    Raises:
        ValueError: If the architecture is not supported, the weights are quantised or have adapters, or the sizes are
            smaller, or do not fit the model.
    """
    check_model(model)
    if head not in HEADS:
        raise ValueError(f"head {head!r} does not exist; choose one of {', '.join(HEADS)}")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be between 0 and 1, but is {tolerance}")
    given = {
        "hidden_size": hidden_size,
        "num_attention_heads": num_attention_heads,
        "num_hidden_layers": num_hidden_layers,
        "intermediate_size": intermediate_size,
    }
    given = {name: size for name, size in given.items() if size is not None}
    grown, places = grown_config(model, config, given, new_layers, budgets, head)
    stream = WiderStream(model.config.hidden_size, grown.hidden_size, tolerance)
    return _written(model, grown, places, stream)


@torch.no_grad()
def _written(model: Model, config: PreTrainedConfig, places: Sequence[int], stream: WiderStream) -> Model:
    """A model with this config that has the weights of `model` in it."""
    config._attn_implementation = model.config._attn_implementation
    grown = type(model)._from_config(config, dtype=model.dtype, **parts(model)).to(model.device)
    (grow_bert if is_bert(config) else grow_modernbert)(grown, model, places, stream)
    small, path = dict(model.named_parameters()), "encoder.layer" if is_bert(config) else "layers"
    numbers = {f".{path}.{place}.": f".{path}.{layer}." for layer, place in enumerate(places)}
    for name, parameter in grown.named_parameters():
        if id(parameter) in stream.written:
            continue
        # What is left has no size that grows, such as the gates of a Delta model.
        found = next((place for place in numbers if place in f".{name}"), "")
        source = f".{name}".replace(found, numbers.get(found, ""))[1:] if found else name
        if small[source].shape != parameter.shape:
            raise ValueError(
                f"{name} belongs to the levels and sizes that the model has and cannot grow; grow the model before it "
                "gets such weights"
            )
        parameter.copy_(small[source])
    return grown.train(model.training)


def parts(model: PreTrainedModel) -> dict[str, bool]:
    """Arguments of the class, beside the config, that say which parts the model has."""
    if isinstance(model, BertModel | modeling.DeltaBertModel):
        return {"add_pooling_layer": model.pooler is not None}
    return {}


def check_model(model: PreTrainedModel) -> None:
    """Raise `ValueError` unless it is a model that can grow."""
    if any(isinstance(part, PeftModel | BaseTunerLayer) for part in model.modules()):
        raise ValueError(
            f"{type(model).__name__} has PEFT adapters, which have the small sizes; merge them first, with "
            "`model.merge_and_unload()`"
        )
    name = type(model).__name__
    if type(model) not in (STOCK.get(name), getattr(modeling, name, None)) or name.removeprefix("Delta") not in STOCK:
        raise ValueError(f"{name} cannot grow; give one of {', '.join(STOCK)}, or one of their Delta forms")
    with torch.device("meta"):
        expected = type(model)(model.config, **parts(model))
    own = dict(model.named_parameters())
    for name, parameter in expected.named_parameters():
        found = own.get(name)
        if found is None or found.is_meta or not found.is_floating_point() or found.shape != parameter.shape:
            raise ValueError(
                f"{name} is no floating-point weight of the shape {tuple(parameter.shape)}, as in a model that is "
                "quantised or on the meta device; load it with its weights in float32"
            )
