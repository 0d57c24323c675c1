"""What the Delta encoders share: the cost of a budget, and its form as a stock model."""

import re
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.initialization import no_init_weights

from .budgets import BUDGET_FIELDS, BudgetSizes
from .model_inputs import check_tokens
from .nested_layers import NestedLayerNorm
from .nested_model import NestedModelMixin
from .token_routing import ROUTED_ATTENTION, ResidualPreview, TokenRouting


# Parameters that a stock model has folded into others.
FOLDED = (".level_weight", ".level_bias", ".gate")
# In the names of those that only route tokens.
PREVIEW = ".preview."
# Fields that a stock config finds by itself.
CLASS_FIELDS = ("model_type", "auto_map", "architectures", "transformers_version")


class BudgetedModelMixin(NestedModelMixin):
    """Cost and stock form of an encoder whose config has budgets ([`BudgetsMixin`]).

    An architecture sets `stock_class`, the class that computes a budget, `layer_list`, the path of its layers in the
    encoder, `mlp_matrices`, the number of feed-forward matrices of a layer, and `own_fields`, those of its config that
    the stock config does not have.
    """

    stock_class: type[PreTrainedModel]
    layer_list: str
    mlp_matrices: int = 2
    own_fields: tuple[str, ...] = BUDGET_FIELDS

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, NestedLayerNorm) and module.level_weight is not None:
            init.zeros_(module.level_weight)
            if module.level_bias is not None:
                init.zeros_(module.level_bias)
        gate = module._parameters.get("gate")
        if gate is not None:
            init.ones_(gate)
        if isinstance(module, ResidualPreview):
            init.normal_(module.down.weight, std=self.config.hidden_size**-0.5)
            init.normal_(module.up.weight, std=self.config.preview_rank**-0.5)
            init.zeros_(module.up.bias)

    def exit_states(self, hidden_states: torch.Tensor, level: int | str | None = None) -> torch.Tensor:
        """What the encoder would give at a level if it ended after the layer of these `hidden_states`."""
        return hidden_states

    def _begin(
        self,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
        level: int | str | None,
        layers: Sequence[int] | None,
    ) -> tuple[BudgetSizes, list[tuple[int, int]], int]:
        """What a forward begins with.

        Returns:
            `tuple`: The sizes of the level; index and feed-forward columns of the layers to run, in order: those of
            `layers`, or all of the level; the number of the level.

        Raises:
            ValueError: If not exactly one input is given, rows have no tokens, or there is no such level or layer.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        sizes = self.config.level_sizes(level)
        columns = dict(zip(sizes.layers, sizes.intermediate, strict=True))
        layers = sizes.layers if layers is None else layers
        wrong = [layer for layer in layers if layer not in columns]
        if wrong:
            raise ValueError(
                f"layers has {wrong[0]}, but the level has the layers {', '.join(map(str, sizes.layers))}"
            )
        if input_ids is not None:
            check_tokens(input_ids)
        return sizes, [(layer, columns[layer]) for layer in layers], self.config.level_index(level)

    def _routed(self, routing: TokenRouting, hidden_states: torch.Tensor, mask: torch.Tensor | dict | None) -> dict:
        """What the layers need to route tokens.

        Raises:
            ValueError: If the model has no previews, or its attention cannot run some of the queries.
        """
        if not self.config.token_routing:
            raise ValueError("routing needs a model with config.token_routing=True, which this one has not")
        attention = self.config._attn_implementation
        if attention not in ROUTED_ATTENTION:
            raise ValueError(
                f"routing works with the attention {' and '.join(ROUTED_ATTENTION)}, but the model has {attention}"
            )
        # A packed batch says nothing about the few positions behind its last document.
        is_mask = isinstance(mask, torch.Tensor) and mask.ndim == 2
        real = mask.bool() if is_mask else hidden_states.new_ones(hidden_states.shape[:2], dtype=torch.bool)
        return {"routing": routing, "real": real}

    @classmethod
    def cut_name(cls, config: PreTrainedConfig, level: int | str | None, name: str) -> str:
        layers = config.level_sizes(level).layers
        return cls._renumbered(name, {layer: place for place, layer in enumerate(layers)})

    @classmethod
    def whole_name(cls, config: PreTrainedConfig, level: int | str | None, name: str) -> str:
        return cls._renumbered(name, dict(enumerate(config.level_sizes(level).layers)))

    @classmethod
    def _renumbered(cls, name: str, numbers: dict[int, int]) -> str:
        """The name of a tensor after its layer got another number; layers that are not in `numbers` keep theirs."""
        found = re.match(rf"(.*\b{re.escape(cls.layer_list)}\.)(\d+)(\..*)", name)
        if found is None:
            return name
        before, layer, after = found.groups()
        return f"{before}{numbers.get(int(layer), layer)}{after}"

    def cost(self, level: int | str | None = None, sequence_length: int = 128) -> dict[str, int]:
        """What one level costs.

        Args:
            level (`int`, `str` or `None`): The level, `None` for the largest.
            sequence_length (`int`, *optional*, defaults to 128): Tokens of a text, on which attention depends.

        Returns:
            `dict[str, int]`: `parameters` it reads; `macs`, multiplications a token (half the FLOPs) of all layers and
            of a masked-language-modeling head, without what runs once a text (pooler, classifier);
            `bytes_per_vector` of its float32 hidden states.

        Raises:
            ValueError: If the level does not exist.
        """
        sizes, tied = self.config.level_sizes(level), self.all_tied_weights_keys
        macs = self._head_macs(sizes.hidden)
        for layer, columns in zip(sizes.layers, sizes.intermediate, strict=True):
            macs += 4 * sizes.hidden * sizes.attention + self.mlp_matrices * sizes.hidden * columns
            macs += 2 * sizes.attention * self._attention_span(layer, sequence_length)
        # Without what is folded into other weights.
        read = self.level_shapes(level)
        shapes = {name: shape for name, shape in read.items() if not (name.endswith(FOLDED) or PREVIEW in name)}
        return {
            "parameters": sum(shape.numel() for name, shape in shapes.items() if name not in tied),
            "macs": macs,
            "bytes_per_vector": 4 * sizes.hidden,
        }

    def routed_macs(self, level: int | str | None = None, sequence_length: int = 128) -> list[int]:
        """Multiplications a token that token routing can leave out.

        Args:
            level (`int`, `str` or `None`): The level, `None` for the largest.
            sequence_length (`int`, *optional*, defaults to 128): Tokens of a text.

        Returns:
            `list[int]`: Those of each routed layer, from the input on: of its feed-forward network, and of what its
            attention does after the projections, which serve all tokens.

        Raises:
            ValueError: If the level does not exist.
        """
        sizes, routed = self.config.level_sizes(level), []
        for layer, columns in zip(sizes.layers, sizes.intermediate, strict=True):
            base_heads, base_columns = self.config.base_sizes(layer)
            if (base_heads, base_columns) != (sizes.heads, columns):
                attention = (sizes.heads - base_heads) * sizes.head_dim
                macs = attention * (sizes.hidden + 2 * self._attention_span(layer, sequence_length))
                routed.append(macs + self.mlp_matrices * sizes.hidden * (columns - base_columns))
        return routed

    def _head_macs(self, hidden: int) -> int:
        """Multiplications of the head for one token."""
        return 0

    def _attention_span(self, layer: int, sequence_length: int) -> int:
        """Tokens that a token of a layer attends to."""
        return sequence_length

    @torch.no_grad()
    def to_stock(self, level: int | str | None = None, padded: bool = False) -> PreTrainedModel:
        """A level as a stock model of transformers, which computes exactly the same.

        Args:
            level (`int`, `str` or `None`): The level, `None` for the largest.
            padded (`bool`, *optional*, defaults to `False`): Whether to add heads and feed-forward columns of zeros
                where a stock model cannot do without them; they change nothing and save no time.

        Raises:
            ValueError: If there is no such model; the message says why and which form there is.
        """
        name = self.config.level_name(level)
        config = self._stock_config(name, self.config.level_sizes(level), padded)
        small = self.cut(level)
        config._attn_implementation = small.config._attn_implementation
        with no_init_weights():
            stock = self._new_stock(config)
        shapes = {key: tensor.shape for key, tensor in stock.state_dict().items()}
        blocks = small.row_blocks()
        state = {key: _padded(value, shapes[key], blocks.get(key, 1)) for key, value in small.folded_state().items()}
        # The tensors themselves: a cast would also take what is computed in float32, such as rotary frequencies.
        stock.load_state_dict(state, assign=True)
        stock.tie_weights()
        return stock.to(small.device).train(self.training)

    def _level_state(self, level: int | str | None) -> dict[str, torch.Tensor]:
        state = super()._level_state(level)
        index = self.config.level_index(level)
        rows = [row for row in range(index + 1) if self.config.fits_in(row, index)]
        return {name: tensor[rows] if name.endswith(FOLDED[:2]) else tensor for name, tensor in state.items()}

    @torch.no_grad()
    def folded_state(self) -> dict[str, torch.Tensor]:
        """The state dict of the largest level without what a stock model does not have: the gains and shifts of its
        norms and its gates are folded into the weights, previews of the tokens' deltas are left out."""
        state = {name: tensor for name, tensor in self.state_dict().items() if PREVIEW not in name}
        for path, module in self.named_modules():
            if isinstance(module, NestedLayerNorm) and module.level_weight is not None:
                for name in ("weight", "bias"):
                    own = state.pop(f"{path}.level_{name}", None)
                    if own is not None:
                        state[f"{path}.{name}"] = state[f"{path}.{name}"] + own[-1]
            elif module._parameters.get("gate") is not None:
                output, start = module.gated_output()
                gate, weight = state.pop(f"{path}.gate"), state[f"{path}.{output}.weight"]
                state[f"{path}.{output}.weight"] = torch.cat((weight[:, :start], gate * weight[:, start:]), dim=1)
        return state

    def _new_stock(self, config: PreTrainedConfig) -> PreTrainedModel:
        return self.stock_class(config)

    def _stock_config(self, name: str, sizes: BudgetSizes, padded: bool) -> PreTrainedConfig:
        kind = self.stock_class.__name__
        widths, heads = sorted(set(sizes.intermediate)), sizes.heads
        if len(widths) > 1 and not padded:
            raise ValueError(
                f"the layers of level {name} have the feed-forward widths {', '.join(map(str, sizes.intermediate))}, "
                f"but those of {kind} have one width; padded with zeros it can be stock"
            )
        if sizes.attention != sizes.hidden:
            heads, rest = divmod(sizes.hidden, sizes.head_dim)
            if rest or heads < sizes.heads:
                raise ValueError(
                    f"level {name} has {sizes.heads} heads of width {sizes.head_dim}, which no number of heads of "
                    f"{kind} with the hidden size {sizes.hidden} can hold; only its own code can run it"
                )
            if not padded:
                raise ValueError(
                    f"level {name} has {sizes.heads} heads of width {sizes.head_dim}, but a {kind} of hidden size "
                    f"{sizes.hidden} has {heads} of them; padded with zeros it can be stock, and so can a model that "
                    "was trained with residual='joint'"
                )
        fields = self.config.cut(name).to_dict()
        for field in (*self.own_fields, *CLASS_FIELDS):
            fields.pop(field, None)
        return self.stock_class.config_class(
            **{**fields, "intermediate_size": widths[-1], "num_attention_heads": heads}
        )


def _padded(tensor: torch.Tensor, shape: torch.Size, blocks: int) -> torch.Tensor:
    """`tensor` with zeros after its end on every axis, after that of each block on the first."""
    if tensor.shape == shape:
        return tensor
    rows = tensor.unflatten(0, (blocks, -1))
    full = (blocks, shape[0] // blocks, *shape[1:])
    missing = [large - small for large, small in zip(full, rows.shape, strict=True)]
    return F.pad(rows, [side for size in reversed(missing) for side in (0, size)]).flatten(0, 1)
