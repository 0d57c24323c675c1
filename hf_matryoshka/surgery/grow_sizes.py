"""To which sizes an encoder can grow, and the config that it has then."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, PreTrainedModel

from ..modeling.budgets import BudgetsMixin
from .grow_bert import passing_neurons


# Those whose head has a norm after an activation.
NORMED_HEADS = ("BertForMaskedLM", "ModernBertForMaskedLM", "ModernBertForSequenceClassification")
# What growth may change in a config, or what says nothing about the function.
FREE_FIELDS = (
    *("hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "head_dim", "layer_types"),
    *("budgets", "layer_order", "full_intermediate_size", "per_layer_config", "norm_eps", "layer_norm_eps"),
    *("initializer_range", "architectures", "auto_map", "transformers_version", "dtype", "global_attn_every_n_layers"),
)


@dataclass(frozen=True)
class Sizes:
    """The sizes of an encoder that can grow.

    Args:
        hidden_size, num_attention_heads, num_hidden_layers, intermediate_size (`int`): As in the configs; where layers
            differ, `intermediate_size` is that of the widest.
    """

    hidden_size: int
    num_attention_heads: int
    num_hidden_layers: int
    intermediate_size: int

    @classmethod
    def of(cls, config: PreTrainedConfig) -> "Sizes":
        nested = isinstance(config, BudgetsMixin)
        widest = max(config.level_sizes().intermediate) if nested else config.intermediate_size
        return cls(config.hidden_size, config.num_attention_heads, config.num_hidden_layers, widest)


def make_config(config_class: type[PreTrainedConfig], values: dict[str, Any]) -> PreTrainedConfig:
    try:
        return config_class.from_dict(values)
    except StrictDataclassError as error:
        # A config wraps what its validators say into two lines that name the validator.
        raise ValueError(str(error.__cause__ or error)) from error


def is_bert(config: PreTrainedConfig) -> bool:
    return config.model_type.removeprefix("delta_") == "bert"


def head_dim(config: PreTrainedConfig) -> int:
    return config.head_dim if isinstance(config, BudgetsMixin) else config.hidden_size // config.num_attention_heads


def _follows_heads(config: PreTrainedConfig) -> bool:
    """Whether the hidden size is that of all heads together."""
    return not isinstance(config, BudgetsMixin) or config.residual == "joint"


def grown_config(
    model: PreTrainedModel,
    config: PreTrainedConfig | None,
    given: dict[str, int],
    new_layers: Sequence[int] | None,
    budgets: Sequence[Sequence] | None,
    head: str,
) -> tuple[PreTrainedConfig, list[int]]:
    """The config of a larger model, and the number that each layer of `model` has in it.

    Args:
        model, config, new_layers, budgets, head: As for [`grow`].
        given (`dict[str, int]`): The sizes that are not to stay.

    Raises:
        ValueError: If no model of these sizes can compute the same.
    """
    old = model.config
    if config is not None:
        if given or budgets is not None:
            raise ValueError("give a config or sizes and budgets, not both")
        _check_config(config, old)
        sizes = Sizes.of(config)
    else:
        if new_layers is not None:
            given = {"num_hidden_layers": old.num_hidden_layers + len(new_layers)} | given
        if not given:
            raise ValueError("there is nothing to grow; give hidden_size, num_hidden_layers or another size")
        sizes = _sizes(old, given)
    if budgets is not None and not isinstance(old, BudgetsMixin):
        raise ValueError(f"{type(model).__name__} has no budgets; give a Delta model, or leave them out")
    passing = check_sizes(model, sizes, head)
    places = _places(old, sizes, new_layers)
    changes: dict[str, Any] = asdict(sizes)
    shrinkage = 1 if sizes.hidden_size % old.hidden_size == 0 else old.hidden_size / sizes.hidden_size
    if is_bert(old):
        changes["layer_norm_eps"] = shrinkage * old.layer_norm_eps
    else:
        changes["norm_eps"] = shrinkage * old.norm_eps
        changes["layer_types"] = _layer_types(old, config, places, sizes)
    if isinstance(old, BudgetsMixin):
        changes |= {"per_layer_config": None, "full_intermediate_size": sizes.intermediate_size}
        if config is not None:
            changes |= {name: getattr(config, name) for name in ("budgets", "layer_order", "full_intermediate_size")}
        else:
            changes |= _levels(old, sizes, places, passing)
        if budgets is not None:
            changes["budgets"] = [list(entry) for entry in budgets]
    return make_config(type(old), {**old.to_dict(), **changes}), places


def _check_config(config: PreTrainedConfig, old: PreTrainedConfig) -> None:
    """Raise `ValueError` if a config is not that of a larger model which can compute the same."""
    if type(config) is not type(old):
        raise ValueError(
            f"config is a {type(config).__name__}, but the model has a {type(old).__name__}; a model grows within its "
            "family"
        )
    new, small = config.to_dict(), old.to_dict()
    for name in sorted(small.keys() - set(FREE_FIELDS)):
        if not name.startswith("_") and new.get(name) != small[name]:
            raise ValueError(
                f"config has {name}={new.get(name)!r}, but the model has {small[name]!r}; growth changes sizes only"
            )


def _sizes(old: PreTrainedConfig, given: dict[str, int]) -> Sizes:
    """The sizes to grow to."""
    if _follows_heads(old) and "hidden_size" in given:
        given.setdefault("num_attention_heads", given["hidden_size"] // head_dim(old))
    elif _follows_heads(old) and "num_attention_heads" in given:
        given["hidden_size"] = given["num_attention_heads"] * head_dim(old)
    own = Sizes.of(old)
    return Sizes(**{field.name: given.get(field.name, getattr(own, field.name)) for field in fields(Sizes)})


def check_sizes(model: PreTrainedModel, sizes: Sizes, head: str) -> int:
    """How many feed-forward neurons a layer needs beside its own.

    Raises:
        ValueError: If no model of these sizes can compute the same.
    """
    old = model.config
    own, hidden, width = Sizes.of(old), sizes.hidden_size, head_dim(old)
    for field in fields(sizes):
        size, least = getattr(sizes, field.name), getattr(own, field.name)
        if size < least:
            raise ValueError(f"{field.name} {size} is smaller than that of the model, {least}; a model can only grow")
    if _follows_heads(old) and hidden != sizes.num_attention_heads * width:
        raise ValueError(
            f"hidden_size {hidden} with {sizes.num_attention_heads} heads does not keep the width {width} of a head; "
            f"give a hidden_size of {width} times the heads"
        )
    if hidden != own.hidden_size and isinstance(old, BudgetsMixin) and old.residual == "joint" and len(old.levels) > 1:
        raise ValueError(
            "with residual 'joint' a level normalises its own part of the hidden states, which more channels would "
            "change; grow a model with one level, or one with residual 'full'"
        )
    if hidden % own.hidden_size == 0:
        return 0
    if (hidden - own.hidden_size) % 2:
        raise ValueError(
            f"hidden_size {hidden} is larger than {own.hidden_size} by an odd number, but new channels come in pairs; "
            f"give {hidden + 1}, or a multiple"
        )
    name = type(model).__name__
    if head == "exact" and name.removeprefix("Delta") in NORMED_HEADS:
        raise ValueError(
            f"the head of {name} has a norm after its activation, so at hidden_size {hidden} none computes the same; "
            f"give a multiple of {own.hidden_size}, or head='closest'"
        )
    passing = passing_neurons(old, hidden) if is_bert(old) else 0
    if sizes.intermediate_size < own.intermediate_size + passing:
        raise ValueError(
            f"intermediate_size {sizes.intermediate_size} is too small: to grow to hidden_size {hidden} a BERT needs "
            f"{passing} feed-forward neurons more than its {own.intermediate_size}, or a multiple as hidden_size"
        )
    return passing


def _places(old: PreTrainedConfig, sizes: Sizes, new_layers: Sequence[int] | None) -> list[int]:
    """Number of each old layer in the new model."""
    depth, count = sizes.num_hidden_layers, sizes.num_hidden_layers - old.num_hidden_layers
    added = set(range(old.num_hidden_layers, depth) if new_layers is None else new_layers)
    first = 0 if is_bert(old) else 1
    if len(added) != count or (new_layers is not None and len(new_layers) != count):
        raise ValueError(
            f"new_layers has {len(new_layers)} numbers, but {count} layers are new; give each of them once"
        )
    if added and not first <= min(added) <= max(added) < depth:
        reason = "" if is_bert(old) else ", as the first layer of a ModernBERT has no norm and stays the first"
        raise ValueError(f"new_layers {sorted(added)} must be numbers from {first} to {depth - 1}{reason}")
    return [place for place in range(depth) if place not in added]


def _layer_types(
    old: PreTrainedConfig, config: PreTrainedConfig | None, places: Sequence[int], sizes: Sizes
) -> list[str]:
    """Which layers of a larger ModernBERT attend to everything; the old ones stay as they are."""
    kept = dict(zip(places, old.layer_types, strict=True))
    if config is not None:
        wrong = [place for place, kind in kept.items() if config.layer_types[place] != kind]
        if wrong:
            raise ValueError(
                f"config has {config.layer_types[wrong[0]]} in layer {wrong[0]}, but that layer of the model has "
                f"{kept[wrong[0]]}; the layers of a model keep their kind of attention"
            )
        return list(config.layer_types)
    full = [place for place, kind in enumerate(old.layer_types) if kind == "full_attention"]
    # The pattern of ModernBERT is every third layer.
    period = full[1] - full[0] if len(full) > 1 else 3
    pattern = [
        "full_attention" if full and (place - full[0]) % period == 0 else "sliding_attention"
        for place in range(sizes.num_hidden_layers)
    ]
    return [kept.get(place, kind) for place, kind in enumerate(pattern)]


def _levels(old: BudgetsMixin, sizes: Sizes, places: Sequence[int], passing: int) -> dict[str, Any]:
    """The levels of a Delta model as those of a larger one, and the order of its layers."""
    old_order = old.layer_order or range(old.num_hidden_layers)
    order = [places[layer] for layer in old_order]
    for place in range(sizes.num_hidden_layers):
        if place in places:
            continue
        if is_bert(old):
            # It has the gains of the norm before it: what has that one must have this one.
            order.insert(order.index(place - 1) + 1 if place else 0, place)
        else:
            order.append(place)
    budgets = []
    for level in old.levels:
        budget, level_sizes = old.budget(level), old.level_sizes(level)
        columns = dict(zip((places[layer] for layer in level_sizes.layers), level_sizes.intermediate, strict=True))
        following = [place for place in order if place not in columns and (place in places or not is_bert(old))]
        depth = order.index(following[0]) if following else len(order)
        widest = max(columns.values())
        widths = [(columns.get(place, widest) + passing) / sizes.intermediate_size for place in order[:depth]]
        budgets.append([widths[0] if len(set(widths)) == 1 else widths, budget.heads, depth])
    full = [1.0, sizes.num_attention_heads, sizes.num_hidden_layers]
    plain = order == sorted(order)
    return {
        "budgets": [*(entry for entry in budgets if entry != full), full],
        "layer_order": None if plain else order,
    }
