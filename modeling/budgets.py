"""Budgets of width, heads and depth: the levels of the Delta encoders."""

import copy
import os
from dataclasses import dataclass
from typing import ClassVar, Self

from .levels import LevelsMixin, check_above_zero, check_at_least, check_pad_token, check_probabilities


# Arguments of a config that decide others: they must be known when it is built.
BUDGET_FIELDS = (
    "budgets",
    "residual",
    "head_dim",
    "full_intermediate_size",
    "layer_order",
    "budget_norms",
    "delta_gates",
    "token_routing",
    "preview_rank",
    "per_layer_config",
)
# Numbers of the stock configs and of these, each of which one of them may not have.
SIZE_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "head_dim",
    "full_intermediate_size",
    "preview_rank",
    "type_vocab_size",
    "local_attention",
)
NORM_FIELDS = ("layer_norm_eps", "norm_eps")
DROPOUT_FIELDS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "attention_dropout",
    "embedding_dropout",
    "mlp_dropout",
    "classifier_dropout",
)
RESIDUALS = ("full", "joint")
DEFAULT_FRACTIONS = (0.5, 0.75)


@dataclass(frozen=True)
class Budget:
    """One nested size of an encoder.

    Args:
        widths (`tuple[float, ...]`): For each layer, the share of the feed-forward columns, in `(0, 1]`; the layers
            in the `layer_order` of the config.
        heads (`int`): Attention heads of every layer.
        depth (`int`): Number of layers, the first of the `layer_order`.
        uniform (`bool`): Whether the budget was given with one width for all layers.
    """

    widths: tuple[float, ...]
    heads: int
    depth: int
    uniform: bool = True

    @classmethod
    def parse(cls, entry: list | tuple) -> "Budget":
        """A budget from an entry of a config, `[width, heads, depth]`; `width` is a number or one number a layer.

        Raises:
            ValueError: If it is not such an entry.
        """
        if len(entry) != 3:
            raise ValueError(f"budget {list(entry)} must be [width, heads, depth], for example [0.5, 6, 6]")
        width, heads, depth = entry
        if not isinstance(heads, int) or not isinstance(depth, int) or heads < 1 or depth < 1:
            raise ValueError(f"budget {list(entry)} must have whole numbers of heads and layers, at least 1 of each")
        uniform = isinstance(width, (int, float))
        widths = (float(width),) * depth if uniform else tuple(float(share) for share in width)
        if len(widths) != depth:
            raise ValueError(
                f"budget {list(entry)} has {len(widths)} widths for {depth} layers; give one number or one a layer"
            )
        if not all(0 < share <= 1 for share in widths):
            raise ValueError(f"budget {list(entry)} must have widths above 0 and up to 1, the full width")
        return cls(widths, heads, depth, uniform)

    @property
    def name(self) -> str:
        """`"w0.5-h6-d6"`, or `"m0.5-h6-d6"` with the mean width where the layers differ (Mix'n'Match)."""
        mean = round(sum(self.widths) / self.depth, 4)
        return f"{'w' if len(set(self.widths)) == 1 else 'm'}{mean}-h{self.heads}-d{self.depth}"

    def fits_in(self, other: "Budget") -> bool:
        """Whether this budget is, on each axis and in each layer, no larger than `other`."""
        pairs = zip(self.widths, other.widths, strict=False)
        return self.heads <= other.heads and self.depth <= other.depth and all(a <= b for a, b in pairs)


@dataclass(frozen=True)
class BudgetSizes:
    """What a budget means in tensors.

    Args:
        hidden (`int`): Width of the residual stream.
        heads (`int`): Attention heads.
        head_dim (`int`): Width of a head.
        layers (`tuple[int, ...]`): Indices of the layers that it runs, from the input on.
        intermediate (`tuple[int, ...]`): Feed-forward columns of each of them.
    """

    hidden: int
    heads: int
    head_dim: int
    layers: tuple[int, ...]
    intermediate: tuple[int, ...]

    @property
    def attention(self) -> int:
        """Width of all heads together."""
        return self.heads * self.head_dim


class BudgetsMixin(LevelsMixin):
    """Budgets as levels; mixed into a config that declares [`BUDGET_FIELDS`] beside the usual sizes of an encoder,
    which are those of the largest budget.

    Every budget is inside the last one, the full size, and none is inside one that is listed before it. Two budgets
    need not be comparable, such as half the width of all layers and all the width of half the layers; only where each
    is inside the next can the weights be saved in shards by level.

    A budget of `d` layers runs the first `d` of `layer_order`, from the input on: by default a prefix of the layers,
    but those at even distances, or those that matter most, are better in most trained models (DynaBERT, arXiv
    2004.04037).

    A width is a share of `full_intermediate_size`, rounded to the nearest column. A cut model keeps this unit,
    so its levels keep their names. Where the layers of the largest budget differ in width, they are also listed in
    `per_layer_config`, the form that transformers has for it.
    """

    # Type of the stock configs that are taken, too.
    stock_model_type: ClassVar[str]

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs) -> tuple[dict, dict]:
        """[`~transformers.PreTrainedConfig.get_config_dict`]; that of a stock model is one of this class."""
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if config_dict.get("model_type") == cls.stock_model_type:
            config_dict = {name: value for name, value in config_dict.items() if name != "model_type"}
        return config_dict, kwargs

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs) -> Self:
        """[`~transformers.PreTrainedConfig.from_dict`], with budgets among the arguments validated as well."""
        given = {name: kwargs.pop(name) for name in BUDGET_FIELDS if name in kwargs}
        config_dict = {name: value for name, value in config_dict.items() if name != "model_type"}
        return super().from_dict({**config_dict, **given}, **kwargs)

    def _set_budgets(self, per_layer_config: dict | None) -> dict | None:
        """Derive what is not given, before the fields are validated; returns the `per_layer_config` to set.

        Args:
            per_layer_config (`dict`, *optional*): As for any config; it may set `intermediate_size` only.
        """
        self.validate_sizes()  # what is derived below rests on it
        self.validate_layer_order()
        given = None if not per_layer_config else self._per_layer_sizes(per_layer_config)
        if self.head_dim is None:
            if self.hidden_size % self.num_attention_heads:
                raise ValueError(
                    f"hidden_size {self.hidden_size} is no multiple of num_attention_heads "
                    f"{self.num_attention_heads}; give head_dim, or another number of heads"
                )
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.full_intermediate_size is None:
            self.full_intermediate_size = max(given) if given else self.intermediate_size
        if self.budgets is None:
            self.budgets = self._default_budgets(given)
        else:
            self.budgets = [_plain(entry) for entry in self.budgets]
        if not self.budgets or any(len(entry) != 3 for entry in self.budgets):
            return None  # `validate_budgets` says what is wrong
        try:
            sizes = self.level_sizes(None).intermediate
        except ValueError:
            return None
        if given is not None and list(sizes) != given:
            raise ValueError(f"per_layer_config has the widths {given}, but the last budget has {list(sizes)}")
        if given is not None:
            self.intermediate_size = max(given)
        return _per_layer_config(sizes)

    def _per_layer_sizes(self, per_layer_config: dict) -> list[int]:
        sizes = [self.intermediate_size] * self.num_hidden_layers
        for layer, fields in per_layer_config.items():
            if set(fields) - {"intermediate_size"} or not 0 <= int(layer) < len(sizes):
                raise ValueError(
                    f"per_layer_config sets {', '.join(sorted(fields))} of layer {layer}; it may set "
                    f"intermediate_size only, of the layers 0 to {len(sizes) - 1}"
                )
            sizes[int(layer)] = fields.get("intermediate_size", sizes[int(layer)])
        return sizes

    def _default_budgets(self, sizes: list[int] | None) -> list[list]:
        heads, depth = self.num_attention_heads, self.num_hidden_layers
        unit = self.full_intermediate_size
        sizes = sizes or [self.intermediate_size] * depth
        widths = [sizes[layer] / unit for layer in self._ordered_layers()]
        budgets = []
        for share in (*DEFAULT_FRACTIONS, 1):
            layers = max(1, round(share * depth))
            # Fewer heads in a full residual stream have no stock form, so the default keeps them all there.
            kept = heads if self.residual == "full" else max(1, round(share * heads))
            parts = [share * width for width in widths[:layers]]
            budgets.append([parts[0] if len(set(parts)) == 1 else parts, kept, layers])
        return budgets

    @property
    def levels(self) -> tuple[str, ...]:
        """Level names, `"w<width>-h<heads>-d<depth>"`, smallest first."""
        return tuple(Budget.parse(entry).name for entry in self.budgets)

    def budget(self, level: int | str | None = None) -> Budget:
        """The budget of a level, `None` for the largest; raises `ValueError` if there is none."""
        index = len(self.budgets) - 1 if level is None else self.level_index(level)
        return Budget.parse(self.budgets[index])

    def level_sizes(self, level: int | str | None = None) -> BudgetSizes:
        """The sizes of the tensors of a level.

        Args:
            level (`int`, `str` or `None`): The level, `None` for the largest.

        Raises:
            ValueError: If the level does not exist.
        """
        budget = self.budget(level)
        columns = [max(1, round(share * self.full_intermediate_size)) for share in budget.widths]
        run = sorted(zip(self._ordered_layers(), columns, strict=False))
        hidden = self.hidden_size if self.residual == "full" else budget.heads * self.head_dim
        layers, intermediate = zip(*run, strict=True)
        return BudgetSizes(hidden, budget.heads, self.head_dim, layers, intermediate)

    def fits_in(self, level: int | str | None, other: int | str | None) -> bool:
        """Whether a level is, on each axis, no larger than another."""
        return self.budget(level).fits_in(self.budget(other))

    @property
    def norm_levels(self) -> int:
        """Levels that have gains and shifts of their own in each norm: all or none."""
        return len(self.budgets) if self.budget_norms else 0

    def base_sizes(self, layer: int) -> tuple[int, int]:
        """Heads and feed-forward columns of a layer at the smallest level; what is beyond them is behind the gates."""
        sizes = self.level_sizes(0)
        if layer not in sizes.layers:
            return 0, 0
        return sizes.heads, sizes.intermediate[sizes.layers.index(layer)]

    def _ordered_layers(self) -> list[int]:
        return self.layer_order or list(range(self.num_hidden_layers))

    def cut(self, level: int | str | None = None) -> Self:
        """Config of a level as a model of its own, with those levels that are inside it.

        Raises:
            ValueError: If the level does not exist.
        """
        index, sizes = self.level_index(level), self.level_sizes(level)
        config = copy.deepcopy(self)
        config.per_layer_config = None
        budget = self.budget(level)
        config.budgets = [entry for entry in config.budgets[: index + 1] if Budget.parse(entry).fits_in(budget)]
        config.hidden_size, config.num_attention_heads = sizes.hidden, sizes.heads
        config.intermediate_size, config.num_hidden_layers = max(sizes.intermediate), len(sizes.intermediate)
        if self.layer_order is not None:
            config.layer_order = [sizes.layers.index(layer) for layer in self.layer_order if layer in sizes.layers]
        if getattr(config, "layer_types", None) is not None:
            config.layer_types = [config.layer_types[layer] for layer in sizes.layers]
        config.per_layer_config = _per_layer_config(sizes.intermediate)
        return config

    def validate_residual(self) -> None:
        if self.residual not in RESIDUALS:
            raise ValueError(f"residual {self.residual!r} does not exist; choose one of {', '.join(RESIDUALS)}")
        attention = self.head_dim * self.num_attention_heads
        if self.residual == "joint" and self.hidden_size != attention:
            raise ValueError(
                f"residual 'joint' needs hidden_size = head_dim * heads, but {self.hidden_size} is not "
                f"{self.head_dim} * {self.num_attention_heads}; use residual 'full'"
            )

    def validate_layer_order(self) -> None:
        depth = self.num_hidden_layers
        if self.layer_order is not None and sorted(self.layer_order) != list(range(depth)):
            raise ValueError(
                f"layer_order {self.layer_order} must have each of the layers 0 to {depth - 1} once, the one that the "
                "smallest budgets need most first"
            )

    def validate_sizes(self) -> None:
        found = {name: self._getattr_without_heterogeneous_validation(name, None) for name in SIZE_FIELDS}
        check_at_least(1, **found)
        check_at_least(0, initializer_range=self.initializer_range)
        check_above_zero(**{name: getattr(self, name) for name in NORM_FIELDS if hasattr(self, name)})
        check_pad_token(self.pad_token_id, self.vocab_size)
        check_probabilities(**{name: getattr(self, name) for name in DROPOUT_FIELDS if hasattr(self, name)})

    def validate_budgets(self) -> None:
        if not self.budgets:
            raise ValueError("budgets is empty; give at least one [width, heads, depth], such as [1.0, 12, 12]")
        budgets = [Budget.parse(entry) for entry in self.budgets]
        for index, budget in enumerate(budgets):
            if not budget.fits_in(budgets[-1]):
                raise ValueError(
                    f"budget {budget.name} is not inside the last one {budgets[-1].name}, which must be the full "
                    "size; give it no more width (in any layer), heads or depth"
                )
            for earlier in budgets[:index]:
                if budget.fits_in(earlier) and budget.name != earlier.name:
                    raise ValueError(
                        f"budget {budget.name} is inside {earlier.name}, which is listed before it; list the smallest "
                        "first"
                    )
        apart = [budget.name for budget in budgets if not budgets[0].fits_in(budget)]
        if self.delta_gates and apart:
            raise ValueError(
                f"delta_gates multiply what a budget has beyond the smallest one, {budgets[0].name}, but that is not "
                f"inside {apart[0]}; list a budget first that is inside all others"
            )
        names = [budget.name for budget in budgets]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"two budgets have the name {twice}; give each size once")
        last, columns = budgets[-1], max(self.level_sizes(None).intermediate)
        size = self._getattr_without_heterogeneous_validation("intermediate_size")
        if size > self.full_intermediate_size:
            raise ValueError(
                f"full_intermediate_size {self.full_intermediate_size} is less than intermediate_size {size}, but a "
                "width of 1 stands for it; leave it out, or give as much"
            )
        if (last.heads, last.depth, columns) != (self.num_attention_heads, self.num_hidden_layers, size):
            width = round(size / self.full_intermediate_size, 4)
            raise ValueError(
                f"the last budget must be the full size, [{width}, {self.num_attention_heads}, "
                f"{self.num_hidden_layers}], but is {last.name}"
            )


def _plain(entry: list | tuple) -> list:
    """An entry as JSON would have it."""
    return [list(value) if isinstance(value, (list, tuple)) else value for value in entry]


def _per_layer_config(sizes: tuple[int, ...]) -> dict[int, dict[str, int]] | None:
    """The layers that are narrower than the widest; `None` if there are none."""
    narrow = {layer: {"intermediate_size": size} for layer, size in enumerate(sizes) if size < max(sizes)}
    return narrow or None
