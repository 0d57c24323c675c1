"""The Matryoshka GPT of a recipe: from scratch, from a Llama, or one to go on with."""

from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch.utils.data import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from ..data.packing_info import check_vocabulary, load_packing_info
from ..data.tokens import load_tokenizer, vocabulary_fingerprint
from ..data.train_tokenizer import check_vocab_size
from ..modeling import (
    FractalFormerConfig,
    FractalFormerForCausalLM,
    MatryoshkaGPTConfig,
    MatryoshkaGPTForCausalLM,
)
from ..surgery.decoder_importance import measure_decoder_importance
from ..surgery.nest_decoder import nest_decoder, nested_config
from .fractal_recipe import FractalRecipe
from .gpt_recipe import CHARACTERS, NESTING, SHAPES, GPTRecipe


HEAD_DIM = 64
# Tokens that the importance of channels is measured on, in rows.
IMPORTANCE_ROWS = 64


def find_tokenizer(recipe: GPTRecipe) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a recipe; `None` where one is to be made of the texts.

    Raises:
        OSError: If it cannot be loaded.
        ValueError: If it is not the one of the packed rows, or they do not say which one that is.
    """
    packed = load_packing_info(recipe.pretokenized_path) if recipe.pretokenized_path else None
    if recipe.gguf_file and not recipe.tokenizer:
        try:
            return AutoTokenizer.from_pretrained(recipe.base_model_path, gguf_file=recipe.gguf_file)
        except (OSError, ValueError) as error:
            raise OSError(f"cannot read {recipe.gguf_file} of {recipe.base_model_path} ({_line(error)})") from error
    name = recipe.tokenizer or (packed and packed.tokenizer) or recipe.base_model_path
    if name == CHARACTERS or name is None:
        if packed is not None:
            raise ValueError(f"{recipe.pretokenized_path} does not say which tokenizer made it; give tokenizer")
        if recipe.base_model_path is not None:
            raise ValueError("the tokenizer 'characters' is for a model from scratch; leave base_model_path out")
        if name is None:
            check_vocab_size(recipe.vocab_size)
        return None
    tokenizer = load_tokenizer(name)
    if packed is not None and vocabulary_fingerprint(tokenizer) != packed.vocabulary_fingerprint:
        raise ValueError(f"the tokenizer {name!r} is not the one that {recipe.pretokenized_path} was packed with")
    return tokenizer


def build_config(recipe: GPTRecipe, tokenizer: PreTrainedTokenizerBase | None) -> MatryoshkaGPTConfig | None:
    """The config of a model from scratch; `None` for a checkpoint. Without a tokenizer (it is made later) the
    vocabulary is that of the recipe, which is enough to check all else.

    Raises:
        ValueError: If the sizes do not nest, or do not fit heads and pairs of channels.
    """
    if recipe.base_model_path is not None:
        return None
    hidden = recipe.hidden_size or 256
    fields: dict[str, Any] = {"hidden_size": hidden, "num_hidden_layers": 6}
    fields["num_attention_heads"] = max(1, hidden // HEAD_DIM)
    fields |= _given(recipe, (*(name for name in SHAPES if name != "rope_theta"), *NESTING))
    if recipe.rope_theta is not None:
        fields["rope_parameters"] = {"rope_type": "default", "rope_theta": float(recipe.rope_theta)}
    # Learned positions that no text has stay random.
    fields["max_position_embeddings"] = recipe.max_length if recipe.blocks == "gpt2" else max(recipe.max_length, 2048)
    if tokenizer is None:
        fields |= {"vocab_size": recipe.vocab_size, "bos_token_id": None, "eos_token_id": None}
    else:
        fields |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        fields |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    try:
        if isinstance(recipe, FractalRecipe):
            return FractalFormerConfig(**fields, children=recipe.children, depth=recipe.depth)
        return MatryoshkaGPTConfig(**fields)
    except StrictDataclassError as error:
        # A config wraps what its validators say into two lines that name the validator.
        raise ValueError(str(error.__cause__ or error)) from error


def load_base(recipe: GPTRecipe, tokenizer: PreTrainedTokenizerBase | None) -> PreTrainedModel | None:
    """The checkpoint of a recipe, in float32.

    Raises:
        OSError: If it cannot be loaded.
        ValueError: If it is neither a Llama nor a Matryoshka GPT, has too few positions, `doll_sizes` are missing, or
            the tokenizer has more tokens.
    """
    path = recipe.base_model_path
    if path is None:
        return None
    model = load_decoder(path, recipe.gguf_file)
    positions = model.config.max_position_embeddings
    if recipe.max_length > positions:
        raise ValueError(f"max_length {recipe.max_length} is more than the {positions} positions of {path!r}")
    if isinstance(model, MatryoshkaGPTForCausalLM):
        given = list(_given(recipe, NESTING))
        if given or recipe.sort:
            raise ValueError(f"{path!r} has its levels already; leave {(given or ['sort'])[0]} out")
    elif recipe.doll_sizes is None:
        raise ValueError(
            f"give doll_sizes, the widths of the levels: {path!r} has {model.config.hidden_size} channels"
        )
    if tokenizer is not None:
        check_vocabulary(len(tokenizer), model.config)
    return model


def levels_of(recipe: GPTRecipe, config: MatryoshkaGPTConfig | None, base: PreTrainedModel | None) -> tuple[str, ...]:
    """The levels that the model of a recipe will have.

    Raises:
        ValueError: If the checkpoint is no Llama, or the sizes do not fit it.
    """
    if isinstance(base, MatryoshkaGPTForCausalLM):
        config = base.config
    elif base is not None:
        options = _given(recipe, NESTING)
        try:
            config = nested_config(base, options.pop("doll_sizes"), **options)
        except StrictDataclassError as error:
            # As above.
            raise ValueError(str(error.__cause__ or error)) from error
    return config.levels


def load_decoder(path: str, gguf_file: str | None = None) -> PreTrainedModel:
    """A decoder of transformers, or a Matryoshka GPT, in float32.

    Raises:
        OSError: If it cannot be loaded.
    """
    files = {"gguf_file": gguf_file} if gguf_file else {}
    try:
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **files)
    except (OSError, ValueError, SafetensorError) as error:
        raise OSError(f"cannot load a language model from {path!r} ({_line(error)})") from error


def build_model(
    recipe: GPTRecipe, config: MatryoshkaGPTConfig | None, base: PreTrainedModel | None, rows: Dataset
) -> MatryoshkaGPTForCausalLM:
    """The model where training starts.

    Args:
        recipe ([`GPTRecipe`]): The recipe.
        config ([`MatryoshkaGPTConfig`], *optional*): Of a model from scratch.
        base (`PreTrainedModel`, *optional*): The checkpoint, see [`load_base`]; it stays as it is.
        rows (`Dataset`): The importance of its channels is measured on some of these.
    """
    if base is None:
        set_seed(recipe.seed)
        kind = FractalFormerForCausalLM if isinstance(config, FractalFormerConfig) else MatryoshkaGPTForCausalLM
        model = kind(config)
    elif isinstance(base, MatryoshkaGPTForCausalLM):
        model = base if not recipe.distil_from_base else base.cut(None)
    else:
        model = nest(base, recipe, rows)
    model.set_attn_implementation(recipe.attn_implementation)
    return model


def nest(base: PreTrainedModel, recipe: GPTRecipe, rows: Dataset) -> MatryoshkaGPTForCausalLM:
    """A Llama with the levels of the recipe, its channels sorted by their importance on some of the rows unless the
    recipe says no."""
    importance = None
    if recipe.sort is not False:
        some = [rows[index] for index in range(0, len(rows), -(-len(rows) // IMPORTANCE_ROWS))]
        importance = measure_decoder_importance(base, map(_alone, some))
    options = _given(recipe, NESTING)
    return nest_decoder(base, options.pop("doll_sizes"), importance, **options)


def _alone(row: dict[str, Any]) -> dict[str, torch.Tensor]:
    """A row as a batch, whose documents are taken for one."""
    ids = torch.as_tensor(row["input_ids"], dtype=torch.int64)[None]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _given(recipe: GPTRecipe, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(recipe, name) for name in names if getattr(recipe, name) is not None}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
