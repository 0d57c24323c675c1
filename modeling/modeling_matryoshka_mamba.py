"""The Matryoshka Mamba encoder: linear in length, nested in width and in output dimension."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from transformers import Mamba2Config, Mamba2Model, PreTrainedModel
from transformers import initialization as init
from transformers.initialization import no_init_weights
from transformers.utils import ModelOutput

from .band_head import BandHead, BandPooling, PooledTokens, unit_length
from .configuration_matryoshka_mamba import MatryoshkaMambaConfig
from .dimension_frontier import FrontierMixin
from .levels import resolve_matryoshka_dim
from .mamba_layers import BlockState, CausalConv, MambaBlock, MambaMixer, TokenLayout, step_biases
from .mamba_streaming import StreamingMixin
from .model_inputs import check_mask, check_tokens
from .nested_layers import NestedEmbedding, NestedRMSNorm
from .nested_model import NestedModelMixin


@dataclass
class MatryoshkaMambaOutput(ModelOutput):
    """
    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch, length, hidden_size)`, *optional*):
            The tokens after the last block; those of padding mean nothing.
        embeddings (`torch.FloatTensor` of shape `(texts, dim)`):
            Embeddings of the texts, of unit length; one a row, or one a segment.
    """

    last_hidden_state: torch.FloatTensor | None = None
    embeddings: torch.FloatTensor | None = None


class MatryoshkaMambaModel(FrontierMixin, StreamingMixin, NestedModelMixin, PreTrainedModel):
    """Turns texts into embeddings whose leading dimensions are embeddings, too.

    A level is a width: the leading heads of each mixer and the leading columns of each SwiGLU network. An output
    dimension is a number of *bands*, each with its own learned pooling and projection ([`BandHead`]): the embedding of
    64 dimensions is the beginning of that of 1536, and costs one band.

    Padding on either side, packing, and cutting a text into segments change nothing but rounding: a padded position
    has a step size of 0, which freezes the state of a scan. Texts longer than `config.segment_length` go through all
    blocks segment by segment, in constant memory ("vertical chunking", arXiv 2604.18199), unless gradients are on or
    the direction is `"bidirectional"`.
    """

    config: MatryoshkaMambaConfig
    base_model_prefix = "mamba"
    supports_gradient_checkpointing = True
    _no_split_modules = ["MambaBlock"]

    def __init__(self, config: MatryoshkaMambaConfig):
        super().__init__(config)
        self.embeddings = NestedEmbedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.layers = nn.ModuleList([MambaBlock(config) for _ in range(config.num_hidden_layers)])
        self.norm = NestedRMSNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.head = BandHead(config.hidden_size, config.bands)
        self.gradient_checkpointing = False
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, MambaMixer):
            heads = module.A_log.shape[0]
            init.copy_(module.A_log, torch.arange(1, heads + 1, dtype=torch.float32).log())
            init.ones_(module.D)
            init.copy_(module.dt_bias, step_biases(heads, self.config))
        elif isinstance(module, CausalConv):
            init.uniform_(module.weight, -(module.kernel**-0.5), module.kernel**-0.5)
            init.zeros_(module.bias)
        elif isinstance(module, BandPooling):
            init.zeros_(module.query)

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embeddings = value

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        segment_ids: torch.Tensor | None = None,
        level: int | str | None = None,
        matryoshka_dim: int | None = None,
        return_tokens: bool = True,
    ) -> MatryoshkaMambaOutput:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`):
                Tokens of the texts.
            attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*):
                1 for text, 0 for padding before or after it.
            segment_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Which text of a packed row a token is of, from 0; texts do not see each other. The embeddings are then
                those of the texts, row by row.
            level (`int` or `str`, *optional*):
                The level to compute, an index or a name such as `"w0.5"`; by default the largest, or that of the
                dimension (`config.dim_widths`).
            matryoshka_dim (`int`, *optional*):
                Dimensions of the embeddings, one of those trained; the largest by default.
            return_tokens (`bool`, *optional*, defaults to `True`):
                Whether to return the last hidden states, which are what grows with the length of a text.

        Returns:
            [`MatryoshkaMambaOutput`].

        Raises:
            ValueError: If the level does not exist, the dimension was not trained, rows have no tokens, or the mask is
                not of their shape.
        """
        config, dim = self.config, resolve_matryoshka_dim(self.config.matryoshka_dims, matryoshka_dim)
        level = config.level_of_dim(dim) if level is None else level
        sizes, bands = config.level_sizes(level), config.matryoshka_dims.index(dim) + 1
        check_tokens(input_ids)
        check_mask(attention_mask, *input_ids.shape, patterns=False)
        if segment_ids is not None:
            hidden, pooled = self._packed(input_ids, attention_mask, segment_ids, sizes, bands)
        else:
            hidden, pooled = self._texts(input_ids, attention_mask, sizes, bands, return_tokens)
        embeddings = unit_length(self.head(pooled), dim)
        return MatryoshkaMambaOutput(last_hidden_state=hidden if return_tokens else None, embeddings=embeddings)

    def _run(
        self,
        input_ids: torch.Tensor,
        sizes: tuple[int, int],
        layout: TokenLayout,
        states: list[BlockState] | None = None,
    ) -> tuple[torch.Tensor, list[BlockState] | None]:
        """The tokens after the last block and its norm, and the states of the blocks."""
        hidden, new = self.dropout(self.embeddings(input_ids)), []
        for number, layer in enumerate(self.layers):
            hidden, state = layer(hidden, sizes, layout, None if states is None else states[number])
            new.append(state)
        return self.norm(hidden), None if states is None else new

    def _texts(
        self, input_ids: torch.Tensor, mask: torch.Tensor | None, sizes: tuple[int, int], bands: int, keep: bool
    ) -> tuple[torch.Tensor | None, PooledTokens]:
        """One text a row, segment by segment if they are long."""
        length, step = input_ids.shape[1], self.config.segment_length
        whole = torch.compiler.is_exporting() or torch.is_grad_enabled() or self.config.direction == "bidirectional"
        if whole or length <= step:
            hidden, _ = self._run(input_ids, sizes, self._layout(mask, input_ids))
            return hidden, self.head.pooling(hidden, mask, bands)
        if mask is not None and self.config.direction == "block_bidirectional":
            # Blocks are counted from the first token of a text, segments from that of a row.
            order = mask.ne(0).int().argsort(dim=1, descending=True, stable=True)
            input_ids, mask = input_ids.gather(1, order), mask.gather(1, order)
        states, pooled, kept = self.new_block_states(input_ids.shape[0], sizes[0]), None, []
        for start in range(0, length, step):
            part = slice(start, start + step)
            own = None if mask is None else mask[:, part]
            hidden, states = self._run(input_ids[:, part], sizes, self._layout(own, input_ids[:, part]), states)
            new = self.head.pooling(hidden, own, bands)
            pooled = new if pooled is None else pooled.merge(new)
            if keep:
                kept.append(hidden)
        if not keep:
            return None, pooled
        hidden = torch.cat(kept, dim=1)
        if mask is not None and self.config.direction == "block_bidirectional":
            hidden = hidden.gather(1, order.argsort(dim=1)[..., None].expand_as(hidden))
        return hidden, pooled

    def _packed(
        self,
        input_ids: torch.Tensor,
        mask: torch.Tensor | None,
        segment_ids: torch.Tensor,
        sizes: tuple[int, int],
        bands: int,
    ) -> tuple[torch.Tensor, PooledTokens]:
        """Several texts a row."""
        text = torch.ones_like(segment_ids) if mask is None else mask.ne(0).long()
        # Texts are numbered over all rows; a position without text has the number of the text before it.
        changes = torch.ones_like(segment_ids)
        changes[:, 1:] = segment_ids[:, 1:].ne(segment_ids[:, :-1]) | text[:, 1:].gt(text[:, :-1])
        numbers = (changes * text).flatten().cumsum(0).view_as(segment_ids) - 1
        count = int(numbers[-1, -1]) + 1
        starts = torch.arange(text.shape[1], device=text.device) * (changes * text)
        positions = torch.arange(text.shape[1], device=text.device) - starts.cummax(dim=1).values
        layout = TokenLayout(mask, numbers, self._blocks(positions, numbers))
        hidden, _ = self._run(input_ids, sizes, layout)
        return hidden, self.head.pooling(hidden, text, bands, numbers.clamp_min(0), count)

    def _layout(self, mask: torch.Tensor | None, input_ids: torch.Tensor) -> TokenLayout:
        if self.config.direction != "block_bidirectional":
            return TokenLayout(mask)
        text = torch.ones_like(input_ids) if mask is None else mask.ne(0).long()
        return TokenLayout(mask, None, self._blocks(text.cumsum(1) - 1))

    def _blocks(self, positions: torch.Tensor, texts: torch.Tensor | None = None) -> torch.Tensor | None:
        """Numbers of the blocks that tokens at these positions of these texts are in."""
        if self.config.direction != "block_bidirectional":
            return texts
        blocks = positions.div(self.config.block_size, rounding_mode="floor")
        return blocks if texts is None else blocks + texts * (positions.shape[1] + 1)

    def new_block_states(self, batch_size: int, heads: int) -> list[BlockState]:
        """What the blocks remember before the first token: nothing."""
        config, like = self.config, self.layers[0].mixer.D
        channels = heads * config.head_dim + 2 * config.state_size
        conv = torch.zeros(batch_size, config.conv_kernel - 1, channels, dtype=like.dtype, device=like.device)
        ssm = torch.zeros(batch_size, heads, config.head_dim, config.state_size, device=like.device)
        return [BlockState(conv.clone(), ssm.clone()) for _ in self.layers]

    def embed_all(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        level: int | str | None = None,
    ) -> dict[int, torch.Tensor]:
        """The embeddings of all dimensions, from one pass where one level computes them all.

        Args:
            input_ids, attention_mask, level: As in [`~MatryoshkaMambaModel.forward`].

        Returns:
            `dict[int, torch.Tensor]`: For each dimension the embeddings of shape `(batch, dim)`, of unit length.
        """
        found: dict[int, torch.Tensor] = {}
        for dims in self._dims_of_levels(level):
            output = self(input_ids, attention_mask, level=level, matryoshka_dim=dims[-1], return_tokens=False)
            found.update({dim: unit_length(output.embeddings, dim) for dim in dims})
        return found

    def _dims_of_levels(self, level: int | str | None) -> Iterator[list[int]]:
        """The dimensions that one level computes, level by level."""
        groups: dict[str, list[int]] = {}
        for dim in self.config.matryoshka_dims:
            name = self.config.level_of_dim(dim) if level is None else self.config.level_name(level)
            groups.setdefault(name, []).append(dim)
        yield from groups.values()

    def cost(
        self, level: int | str | None = None, matryoshka_dim: int | None = None, sequence_length: int = 128
    ) -> dict[str, int]:
        """What one level costs: `parameters` it reads, `macs` a token (half the FLOPs), `bytes_per_vector` of its
        float32 embeddings.

        Args:
            level (`int`, `str` or `None`): The level, `None` for the largest.
            matryoshka_dim (`int`, *optional*): Dimensions of the embeddings; the largest by default.
            sequence_length (`int`, *optional*, defaults to 128): Tokens of a text, over which the head is shared.

        Raises:
            ValueError: If the level does not exist or the dimension was not trained.
        """
        config, dim = self.config, resolve_matryoshka_dim(self.config.matryoshka_dims, matryoshka_dim)
        heads, columns = config.level_sizes(level)
        channels, scans = heads * config.head_dim, 1 if config.direction == "causal" else 2
        width, size, chunk = config.hidden_size, config.state_size, config.chunk_size
        block = width * (3 * channels + 2 * size + heads + 3 * columns)
        block += config.conv_kernel * (channels + 2 * size)
        # Scores and values of a chunk, and the states at its start and its end.
        block += scans * (chunk * (size + channels) + 2 * channels * size)
        bands = config.matryoshka_dims.index(dim) + 1
        head = 2 * bands * width + width * dim // sequence_length
        unread = [name for name in self.state_dict() if self._is_band_after(name, bands)]
        shapes = {name: shape for name, shape in self.level_shapes(level).items() if name not in unread}
        return {
            "parameters": sum(shape.numel() for shape in shapes.values()),
            "macs": config.num_hidden_layers * block + head,
            "bytes_per_vector": 4 * dim,
        }

    @staticmethod
    def _is_band_after(name: str, bands: int) -> bool:
        prefix = "head.projections."
        return name.startswith(prefix) and int(name.removeprefix(prefix).split(".")[0]) >= bands

    @torch.no_grad()
    def to_stock(self, level: int | str | None = None, padded: bool = False) -> Mamba2Model:
        """The blocks as a `Mamba2Model`, which gives equal hidden states; it has no embeddings of texts.

        Raises:
            ValueError: If a `Mamba2Model` cannot compute the same; the message says why.
        """
        config, (heads, _) = self.config.cut(level), self.config.level_sizes(level)
        if config.direction != "causal":
            raise ValueError(f"a Mamba2Model is causal, but this model is {config.direction}")
        if config.intermediate_size:
            raise ValueError("a Mamba2Model has no feed-forward networks, but this model has (intermediate_size)")
        if heads * config.head_dim != config.expand * config.hidden_size:
            raise ValueError(
                f"level {self.config.level_name(level)} has {heads * config.head_dim} channels, but those of a "
                f"Mamba2Model are a multiple of the hidden size {config.hidden_size}; only its own code can run it"
            )
        names = ("vocab_size", "hidden_size", "num_hidden_layers", "head_dim", "num_heads", "expand", "state_size")
        names += ("conv_kernel", "layer_norm_epsilon", "chunk_size", "pad_token_id")
        fields = {name: getattr(config, name) for name in names}
        stock_config = Mamba2Config(**fields, n_groups=1, use_bias=False, use_conv_bias=True, residual_in_fp32=False)
        with no_init_weights():
            stock = Mamba2Model(stock_config)
        small = self.cut(level)
        state = {"embeddings.weight": small.embeddings.weight, "norm_f.weight": small.norm.weight}
        for number, layer in enumerate(small.layers):
            mixer, name = layer.mixer, f"layers.{number}"
            state[f"{name}.norm.weight"] = layer.norm.weight
            parts = (mixer.z_proj, mixer.x_proj, mixer.bc_proj, mixer.dt_proj)
            state[f"{name}.mixer.in_proj.weight"] = torch.cat([part.weight for part in parts])
            for leaf in ("weight", "bias"):
                convs = torch.cat([getattr(mixer.x_conv, leaf), getattr(mixer.bc_conv, leaf)])
                state[f"{name}.mixer.conv1d.{leaf}"] = convs[:, None] if leaf == "weight" else convs
            for leaf in ("dt_bias", "A_log", "D"):
                state[f"{name}.mixer.{leaf}"] = getattr(mixer, leaf)
            state[f"{name}.mixer.norm.weight"] = mixer.norm.weight
            state[f"{name}.mixer.out_proj.weight"] = mixer.out_proj.weight
        stock.load_state_dict({name: copy.deepcopy(tensor.detach()) for name, tensor in state.items()})
        return stock.to(self.device, self.dtype).train(self.training)


MatryoshkaMambaModel.register_for_auto_class("AutoModel")

__all__ = ["MatryoshkaMambaModel", "MatryoshkaMambaOutput"]
