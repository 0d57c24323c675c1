"""The Matryoshka GPT: a decoder of the shape of Llama, nested along everything."""

import os
from collections.abc import Iterator
from functools import partial

import torch
from torch import nn
from transformers import GenerationMixin, LlamaConfig, LlamaForCausalLM, LlamaModel, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation.utils import GenerateOutput
from transformers.initialization import no_init_weights
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_matryoshka_gpt import MatryoshkaGPTConfig
from .gpt2_blocks import NormedEmbedding, NormedHead, as_gpt2
from .gpt_layers import MatryoshkaGPTAttention, MatryoshkaGPTDecoderLayer, make_glue, make_norm
from .model_inputs import check_mask, check_tokens
from .nested_layers import Glue, NestedEmbedding, NestedLinear
from .nested_model import NestedModelMixin
from .nested_rope import rotary_table, stock_channels
from .nested_speculation import check_draft, check_draft_model, speculative_decoding


class MatryoshkaGPTPreTrainedModel(NestedModelMixin, PreTrainedModel):
    """What the decoder has in common with and without its head: levels, cost, dolls, the form as a Llama."""

    config: MatryoshkaGPTConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["MatryoshkaGPTDecoderLayer"]
    _skip_keys_device_placement = ["cache"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": MatryoshkaGPTDecoderLayer, "attentions": MatryoshkaGPTAttention}
    stock_class: type[PreTrainedModel]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Glue):
            init.copy_(module.weight, torch.eye(*module.weight.shape))

    @classmethod
    def cut_name(cls, config: MatryoshkaGPTConfig, level: int | str | None, name: str) -> str:
        layers = config.level_sizes(level).layers
        return _renumbered(name, {layer: place for place, layer in enumerate(layers)})

    @classmethod
    def whole_name(cls, config: MatryoshkaGPTConfig, level: int | str | None, name: str) -> str:
        return _renumbered(name, dict(enumerate(config.level_sizes(level).layers)))

    def cost(self, level: int | str | None = None, sequence_length: int = 128) -> dict[str, int]:
        """What one level costs.

        Args:
            level (`int`, `str` or `None`): The level, `None` for the largest.
            sequence_length (`int`, *optional*, defaults to 128): Tokens before the one that is computed.

        Returns:
            `dict[str, int]`: `parameters` it reads; `macs`, multiplications a token (half the FLOPs), the output head
            included where there is one; `bytes_per_token`, what the float32 keys and values of a token take.

        Raises:
            ValueError: If the level does not exist.
        """
        sizes, tied = self.config.level_sizes(level), self.all_tied_weights_keys
        queries, keys = sizes.heads * sizes.head_dim, sizes.key_value_heads * sizes.head_dim
        products = 2 if self.config.blocks == "gpt2" else 3
        layer = sizes.hidden * (2 * queries + 2 * keys + products * sizes.intermediate)
        layer += 2 * queries * sequence_length + (4 * sizes.hidden**2 if self.config.glue else 0)
        shapes = {name: shape for name, shape in self.level_shapes(level).items() if name not in tied}
        return {
            "parameters": sum(shape.numel() for shape in shapes.values()),
            "macs": len(sizes.layers) * layer + self._head_macs(sizes.output),
            "bytes_per_token": 8 * len(sizes.layers) * keys,
        }

    def _head_macs(self, output: int) -> int:
        return 0

    @torch.no_grad()
    def doll(self, level: int | str) -> PreTrainedModel:
        """A level as a model of its own that shares all weights with this one: nothing is copied, and what one of them
        learns the other knows. To save it or move it, take [`cut`].

        Args:
            level (`int` or `str`): The level, the only one that the doll has.

        Raises:
            ValueError: If the level does not exist.
        """
        index = self.config.level_index(level)
        config = self.config.cut(index).only_largest()
        with torch.device("meta"), no_init_weights():
            view = self._new(config)
        own = dict(self.named_modules())
        for path, module in view.named_modules():
            source = own[self.whole_name(self.config, index, path)]
            module._parameters = source._parameters
        base = view.get_decoder()
        base.is_doll = True
        if self.can_generate():
            view.generation_config = type(self.generation_config).from_dict(self.generation_config.to_dict())
        return view.train(self.training)

    def save_pretrained(self, save_directory: str | os.PathLike, *args, **kwargs) -> None:
        """[`~transformers.PreTrainedModel.save_pretrained`].

        Raises:
            ValueError: If this is a doll.
        """
        if self.get_decoder().is_doll:
            raise ValueError("a doll shares the weights of a larger model; save what cut(level) of that model gives")
        super().save_pretrained(save_directory, *args, **kwargs)

    @torch.no_grad()
    def to_stock(self, level: int | str | None = None, padded: bool = False) -> PreTrainedModel:
        """A level as a Llama, or of GPT-2 blocks as a GPT-2, which computes the same.

        Args:
            level (`int`, `str` or `None`): The level, `None` for the largest.
            padded (`bool`, *optional*, defaults to `False`): With `nesting="output"`: whether the head may be filled
                up with zeros, which is what keeps its input whole.

        Raises:
            ValueError: If there is no such Llama; the message says why.
        """
        name, sizes = self.config.level_name(level), self.config.level_sizes(level)
        narrow = sizes.output < sizes.hidden and self.get_output_embeddings() is not None
        if narrow and not padded:
            raise ValueError(
                f"the head of level {name} reads {sizes.output} of {sizes.hidden} channels, but that of a Llama reads "
                "all of them; padded with zeros it can be stock"
            )
        small = self.cut(level)
        if small.config.norm_groups > 1 or small.config.glue:
            what = "glue, which fold_glue takes away" if small.config.glue else "norms of groups of channels"
            raise ValueError(f"level {name} has {what}; no decoder of transformers has that")
        if small.config.blocks == "gpt2":
            return self._finished(as_gpt2(small, small._stock_state()))
        config = small._stock_config(tied=small.config.tie_word_embeddings and not narrow)
        with no_init_weights():
            stock = self.stock_class(config)
        state = small._stock_state()
        if narrow:
            head = state["lm_head.weight"].clone()
            head[:, sizes.output :] = 0
            state["lm_head.weight"] = head
        stock.load_state_dict(state, assign=True)
        stock.tie_weights()
        return self._finished(stock)

    def _finished(self, stock: PreTrainedModel) -> PreTrainedModel:
        if self.can_generate():
            stock.generation_config = type(self.generation_config).from_dict(self.generation_config.to_dict())
        return stock.to(self.device).train(self.training)

    def _stock_config(self, tied: bool) -> LlamaConfig:
        names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        names += ("num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps")
        names += ("rope_parameters", "attention_bias", "mlp_bias", "attention_dropout", "initializer_range")
        names += ("use_cache", "pad_token_id", "bos_token_id", "eos_token_id", "dtype")
        config = LlamaConfig(**{name: getattr(self.config, name) for name in names}, tie_word_embeddings=tied)
        config._attn_implementation = self.config._attn_implementation
        return config

    def _stock_state(self) -> dict[str, torch.Tensor]:
        """The weights with the channels of queries and keys in the order of a Llama, and all heads one by one."""
        state = dict(self.state_dict())
        for name, axis, rows in self._reordered():
            state[name] = state[name].index_select(axis, rows.to(state[name].device))
        return state

    def from_stock_order(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The weights of a Llama of the full size, in the order that they have here.

        Args:
            state (`dict[str, torch.Tensor]`): The state dict of a `LlamaModel` or `LlamaForCausalLM`.
        """
        state = dict(state)
        for name, axis, rows in self._reordered():
            state[name] = state[name].index_select(axis, rows.argsort().to(state[name].device))
        return state

    def _reordered(self) -> Iterator[tuple[str, int, torch.Tensor]]:
        """The tensors whose order is not that of a Llama: name, axis, and for each place there the one that it is
        here."""
        config = self.config
        plain = list(range(config.head_dim))
        rotated = plain if config.blocks == "gpt2" else stock_channels(config.head_dim // 2, config.rope_order)
        groups = config.num_key_value_heads
        for name in self.state_dict():
            *_, layer, leaf = ("", *name.split("."))
            heads, channels = {
                "q_proj": (config.num_attention_heads, rotated),
                "k_proj": (groups, rotated),
                "v_proj": (groups, plain),
                "o_proj": (config.num_attention_heads, plain),
            }.get(layer, (0, plain))
            if heads and not (layer == "o_proj" and leaf == "bias"):
                yield name, 1 if layer == "o_proj" else 0, self._stock_rows(heads, channels)

    def _stock_rows(self, heads: int, channels: list[int]) -> torch.Tensor:
        """For each row of a stock projection, by head and then by channel, the row that it is here."""
        channel, head = torch.tensor(channels), torch.arange(heads)[:, None]
        if self.config.nested_heads == "head_dim":
            return (channel * heads + head).flatten()
        return (head * self.config.head_dim + channel).flatten()


def _renumbered(name: str, numbers: dict[int, int]) -> str:
    """The name of a tensor or module after its layer got another number."""
    before, found, after = name.partition("layers.")
    if not found:
        return name
    layer, dot, rest = after.partition(".")
    return f"{before}layers.{numbers.get(int(layer), layer)}{dot}{rest}"


class MatryoshkaGPTModel(MatryoshkaGPTPreTrainedModel):
    """The decoder without a head, at any of its levels ([`MatryoshkaGPTConfig`])."""

    stock_class = LlamaModel

    def __init__(self, config: MatryoshkaGPTConfig):
        super().__init__(config)
        shape = (config.vocab_size, config.hidden_size, config.pad_token_id)
        if config.blocks == "gpt2":
            self.embed_tokens = NormedEmbedding(*shape, config.rms_norm_eps)
            self.embed_positions = NestedEmbedding(config.max_position_embeddings, config.hidden_size)
        else:
            self.embed_tokens = NestedEmbedding(*shape)
        self.layers = nn.ModuleList(
            [MatryoshkaGPTDecoderLayer(config, layer_idx) for layer_idx in range(config.num_hidden_layers)]
        )
        self.norm = make_norm(config)
        self._tables: dict[torch.device, tuple[torch.Tensor, float]] = {}
        self.is_doll = False
        self.gradient_checkpointing = False
        self.post_init()

    def get_decoder(self) -> "MatryoshkaGPTModel":
        return self

    def resolve_level(self, level: int | str | None) -> str:
        """The name of the level that a call computes.

        Raises:
            ValueError: If the level does not exist, or this is a doll of another one.
        """
        if self.is_doll and isinstance(level, str) and level not in self.config.levels:
            raise ValueError(
                f"level given twice: this is the doll of level {self.config.levels[0]}, and the call asks for {level}"
            )
        return self.config.level_name(level)

    def _rotations(self, hidden: torch.Tensor, position_ids: torch.Tensor, head_dim: int) -> tuple[torch.Tensor, ...]:
        """Cosine and sine of each pair of channels, `(batch, 1, length, head_dim / 2)`."""
        # No buffer: those come back from `from_pretrained` empty, and lose digits with the dtype of the model.
        if hidden.device not in self._tables:
            self._tables[hidden.device] = rotary_table(self.config, hidden.device)
        table, scaling = self._tables[hidden.device]
        with torch.autocast(hidden.device.type, enabled=False):
            angles = position_ids[:, None, :, None].float() * table[: head_dim // 2]
            return tuple((part * scaling).to(hidden.dtype) for part in (angles.cos(), angles.sin()))

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        level: int | str | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPast:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`), attention_mask, position_ids, cache,
                use_cache: As in `LlamaModel`; keys and values are those of one level.
            inputs_embeds (`torch.Tensor` of shape `(batch, length, hidden)`, *optional*): Instead of `input_ids`; of a
                smaller level its leading channels are read.
            level (`int` or `str`, *optional*): The level to compute; the largest by default.

        Returns:
            `BaseModelOutputWithPast`: `last_hidden_state` of shape `(batch, length, hidden)`.

        Raises:
            ValueError: If the level does not exist, not exactly one of `input_ids` and `inputs_embeds` is given, rows
                have no tokens, or the mask is not of their shape.
        """
        sizes = self.config.level_sizes(self.resolve_level(level))
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        own = {"slot": sizes.slot} if sizes.slot else {}
        if inputs_embeds is None:
            check_tokens(input_ids)
            hidden = self.embed_tokens(input_ids, sizes.hidden, **own)
        else:
            hidden = inputs_embeds[..., sizes.slot * sizes.hidden : (sizes.slot + 1) * sizes.hidden]
        if cache is None:
            check_mask(attention_mask, *hidden.shape[:2])
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        if position_ids is None:
            seen = 0 if cache is None else cache.get_seq_length()
            position_ids = (torch.arange(hidden.shape[1], device=hidden.device) + seen)[None]
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=hidden,
            attention_mask=attention_mask,
            cache=cache,
            position_ids=position_ids,
        )
        rotations = None
        if self.config.blocks == "gpt2":
            hidden = hidden + self.embed_positions(position_ids, sizes.hidden)
        else:
            rotations = self._rotations(hidden, position_ids, sizes.head_dim)
        for place, layer in enumerate(sizes.layers):
            hidden = self.layers[layer](
                hidden,
                sizes,
                position_embeddings=rotations,
                attention_mask=mask,
                cache=cache,
                cache_index=place,
                **kwargs,
            )
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden, **own), cache=cache)


class MatryoshkaGPTForCausalLM(MatryoshkaGPTPreTrainedModel, GenerationMixin):
    """The decoder with its language-modeling head; `generate(..., level="d64")` works with all options."""

    stock_class = LlamaForCausalLM
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: MatryoshkaGPTConfig):
        super().__init__(config)
        self.model = MatryoshkaGPTModel(config)
        if config.blocks == "gpt2":
            self.lm_head = NormedHead(config.hidden_size, config.vocab_size, config.rms_norm_eps)
        else:
            self.lm_head = NestedLinear(config.hidden_size, config.vocab_size, bias=False)
        self.head_glue = make_glue(config)
        self.post_init()

    def _head_macs(self, output: int) -> int:
        return output * self.config.vocab_size + (output**2 if self.config.glue else 0)

    def generate(
        self,
        *args,
        draft_level: int | str | None = None,
        num_draft_tokens: int | None = None,
        draft_model: PreTrainedModel | None = None,
        **kwargs,
    ) -> GenerateOutput | torch.LongTensor:
        """`generate` of transformers, with all its options, and `level`.

        Args:
            draft_level (`int` or `str`, *optional*): A smaller level that drafts what this one verifies in fewer
                passes: the same tokens (sampled: the same distribution), also of a batch of texts.
            num_draft_tokens (`int`, *optional*): Tokens that it drafts a round; by default as many as pay, by what is
                accepted.
            draft_model (`PreTrainedModel`, *optional*): A language model of the same vocabulary that drafts instead of
                a level, such as a doll where this model is a copy of one level.

        Raises:
            ValueError: If the draft is not smaller, has another vocabulary, or another way of decoding is asked for,
                too.
        """
        if draft_level is None and draft_model is None:
            if num_draft_tokens is not None:
                raise ValueError("num_draft_tokens needs draft_level, the level that drafts")
            return super().generate(*args, **kwargs)
        if draft_level is not None and draft_model is not None:
            raise ValueError("draft_level and draft_model are two ways to draft; leave one out")
        if draft_model is None:
            check_draft(self, kwargs.get("level"), draft_level)
        else:
            check_draft_model(self, draft_model)
        for name in ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit", "custom_generate"):
            if kwargs.get(name) is not None:
                given = "draft_level" if draft_model is None else "draft_model"
                raise ValueError(f"{given} and {name} are two ways to draft; leave one out")
        # `generate` keeps the streamer from a loop that is not its own.
        drafting = {"draft_level": draft_level, "num_draft_tokens": num_draft_tokens, "draft_model": draft_model}
        drafting["streamer"] = kwargs.get("streamer")
        return super().generate(*args, custom_generate=partial(speculative_decoding, **drafting), **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        level: int | str | None = None,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """
        Args:
            labels (`torch.LongTensor` of shape `(batch, length)`, *optional*): Tokens to predict, -100 to leave out;
                they are shifted here.
            logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to 0): Positions at the end to compute logits
                of, or their indices; all by default.
            level (`int` or `str`, *optional*): The level to compute; the largest by default.
            The others as in [`~MatryoshkaGPTModel.forward`].

        Returns:
            `CausalLMOutputWithPast`: `logits` of shape `(batch, length, vocab_size)`, and the `loss` if there are
            labels.

        Raises:
            ValueError: As [`~MatryoshkaGPTModel.forward`].
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            level=level,
            **kwargs,
        )
        # The rows are named because the weight of a doll is larger than the doll.
        kept = self.head_glue(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
        sizes = self.config.level_sizes(level)
        own = {"column_slot": sizes.slot} if sizes.slot else {}
        logits = self.lm_head(kept[..., : sizes.output], self.config.vocab_size, **own)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            cache=outputs.cache,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


MatryoshkaGPTModel.register_for_auto_class("AutoModel")
MatryoshkaGPTForCausalLM.register_for_auto_class("AutoModelForCausalLM")

__all__ = ["MatryoshkaGPTForCausalLM", "MatryoshkaGPTModel"]
