"""The Mamba encoder and its rivals of equal size, to be timed."""

import copy
from collections.abc import Callable

import torch
from transformers import BertConfig, BertModel, ModernBertConfig, ModernBertModel, PreTrainedModel

from ..modeling import MatryoshkaMambaConfig, MatryoshkaMambaModel
from ..modeling.onednn_layers import with_onednn_linears


Run = Callable[[torch.Tensor], object]
TRANSFORMERS = ("bert_sdpa", "modernbert_sdpa")
ONEDNN = "-onednn"


def speed_systems(config: MatryoshkaMambaConfig) -> dict[str, bool]:
    """Names of the systems for [`build_system`], and whether their time is linear in the length of a text.

    `ours <level>` is the encoder at each width, with `-bf16` under bfloat16 autocast at the smallest and the largest;
    `ours_causal`, `ours_block_bidirectional` the same at full width in the other directions that can be streamed;
    `bert_sdpa` and `modernbert_sdpa` stock models of the same hidden size and depth, whose feed-forward width makes
    their layers as large, with sdpa attention; all of these also with `-onednn`, their linear layers computed by
    oneDNN ([`with_onednn_linears`]), where torch has it; `mamba2_stock` the `Mamba2Model` of transformers with the
    same mixers, at its default chunk size of 256, and `ours_mixers` the encoder that computes the same function as
    that; these two only where its channels are `expand` times the hidden size, as stock ones are.
    """
    systems = {f"ours {level}": True for level in config.levels}
    systems |= {f"ours {level}-bf16": True for level in (config.levels[0], config.levels[-1])}
    others = [one for one in ("causal", "block_bidirectional") if one != config.direction]
    systems |= {f"ours_{direction}": True for direction in others}
    systems |= dict.fromkeys(TRANSFORMERS, False)
    if torch.backends.mkldnn.is_available():
        plain = [f"ours {level}" for level in config.levels] + list(TRANSFORMERS)
        systems |= {f"{name}{ONEDNN}": systems[name] for name in plain}
    if (config.num_heads or 0) * config.head_dim == config.expand * config.hidden_size:
        # Its scan has a matrix of all chunks, and takes a text at once.
        systems |= {"mamba2_stock": False, "ours_mixers": True}
    return systems


def build_system(name: str, config: MatryoshkaMambaConfig, positions: int) -> tuple[PreTrainedModel, Run]:
    """A model with random weights, and what encodes a text with it.

    Args:
        name (`str`): One of [`speed_systems`].
        config ([`MatryoshkaMambaConfig`]): The encoder; it says the sizes of all.
        positions (`int`): Tokens of the longest text.
    """
    torch.manual_seed(0)
    packed, (system, _, level) = name.endswith(ONEDNN), name.removesuffix(ONEDNN).partition(" ")
    if system in TRANSFORMERS:
        make = _bert if system == "bert_sdpa" else _modernbert
        with torch.device("meta"):
            target = layer_parameters(MatryoshkaMambaModel(config))
        model = _of_equal_size(make, config, target, positions).eval()
        model = with_onednn_linears(model) if packed else model
        return model, lambda ids: model(input_ids=ids)
    # The mixers alone, as a stock model has them; its channels are a whole multiple of the hidden size.
    plain = {"intermediate_size": 0, "full_intermediate_size": 0, "direction": "causal"}
    if system == "mamba2_stock":
        stock = MatryoshkaMambaModel(_changed(config, **plain, chunk_size=256)).to_stock().eval()
        return stock, lambda ids: stock(input_ids=ids, use_cache=False)
    options = {"ours_mixers": plain}.get(system, {})
    if system not in ("ours", "ours_mixers"):
        options = {"direction": system.removeprefix("ours_")}
    model = MatryoshkaMambaModel(_changed(config, **options)).eval()
    half, own = level.endswith("-bf16"), {"level": level.removesuffix("-bf16") or None, "return_tokens": False}
    model = with_onednn_linears(model, own["level"]) if packed else model

    def run(ids: torch.Tensor) -> object:
        with torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=half):
            return model(ids, **own)

    return model, run


def layer_parameters(model: PreTrainedModel) -> int:
    """Parameters of the layers of a model, without its embeddings and its head."""
    return sum(tensor.numel() for name, tensor in model.named_parameters() if ".layer" in f".{name}")


def _changed(config: MatryoshkaMambaConfig, **options: object) -> MatryoshkaMambaConfig:
    config = copy.deepcopy(config)
    for name, value in options.items():
        setattr(config, name, value)
    return config


def _shape(config: MatryoshkaMambaConfig, intermediate: int, positions: int) -> dict[str, int]:
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": max(1, config.hidden_size // 64),
        "intermediate_size": intermediate,
        "max_position_embeddings": positions,
    }


def _bert(config: MatryoshkaMambaConfig, intermediate: int, positions: int) -> BertModel:
    return BertModel(BertConfig(**_shape(config, intermediate, positions)), add_pooling_layer=False)


def _modernbert(config: MatryoshkaMambaConfig, intermediate: int, positions: int) -> ModernBertModel:
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
    return ModernBertModel(ModernBertConfig(**_shape(config, intermediate, positions), **ids))


def _of_equal_size(
    make: Callable[..., PreTrainedModel], config: MatryoshkaMambaConfig, target: int, positions: int
) -> PreTrainedModel:
    """The model whose layers have as many parameters; the feed-forward width is what is free."""
    with torch.device("meta"):
        small, large = (layer_parameters(make(config, width, 16)) for width in (64, 128))
    return make(config, max(1, 64 + round(64 * (target - small) / (large - small))), positions)
