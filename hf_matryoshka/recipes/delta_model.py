"""The nested masked language model of a recipe: from scratch, or from a BERT or ModernBERT checkpoint."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForMaskedLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..data.files import reading_weights
from ..data.packed_collator import PackedMlmCollator
from ..data.packing_info import check_vocabulary, load_packing_info
from ..data.tokens import check_max_length, load_tokenizer, vocabulary_fingerprint
from ..data.train_tokenizer import check_vocab_size
from ..modeling import DeltaBertConfig, DeltaBertForMaskedLM, DeltaModernBertConfig, DeltaModernBertForMaskedLM
from ..surgery.hierarchical_init import hierarchical_init
from .budget_options import base_budgets
from .delta_recipe import SHAPES, DeltaRecipe


logger = logging.getLogger(__name__)

CLASSES = {
    "bert": (DeltaBertConfig, DeltaBertForMaskedLM),
    "modernbert": (DeltaModernBertConfig, DeltaModernBertForMaskedLM),
}
HEAD_DIM = 64
# By default the feed-forward width is so many times the hidden size, in halves.
EXPANSION = {"bert": 8, "modernbert": 3}


def read_config(path: str, **options: Any) -> tuple[PreTrainedConfig, type[PreTrainedModel]]:
    """Config of a BERT or ModernBERT, stock or nested, as a nested one, and the class of its masked language model.

    Raises:
        OSError: If there is no such checkpoint.
        ValueError: If it is of another architecture, or `options` (budgets, residual) do not fit it.
    """
    try:
        fields, _ = PreTrainedConfig.get_config_dict(path)
    except OSError as error:
        raise OSError(f"cannot read a checkpoint from {path!r} ({' '.join(str(error).split())})") from error
    kind = fields.get("model_type", "none")
    if kind.removeprefix("delta_") not in CLASSES:
        raise ValueError(f"{path!r} is of type {kind!r}; give a BERT or ModernBERT, stock or nested")
    config_class, model_class = CLASSES[kind.removeprefix("delta_")]
    config = config_class.from_pretrained(path, **options)
    return config, model_class


def build_config(
    recipe: DeltaRecipe, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[PreTrainedConfig, type[PreTrainedModel]]:
    """Config of the model of a recipe and its class; without a tokenizer (it is trained later) the vocabulary is that
    of the recipe, which is enough to check all else.

    Raises:
        OSError: If the checkpoint cannot be read.
        ValueError: If the budgets are not nested, the shape contradicts the checkpoint, or texts are longer than the
            model has positions.
    """
    try:
        return _build_config(recipe, tokenizer)
    except StrictDataclassError as error:
        # A config wraps what its validators say into two lines that name the validator.
        raise ValueError(str(error.__cause__ or error)) from error


def _build_config(
    recipe: DeltaRecipe, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[PreTrainedConfig, type[PreTrainedModel]]:
    if recipe.base_ratio is not None or recipe.base_heads is not None:
        plain = replace(recipe, base_ratio=None, base_heads=None)
        budgets = base_budgets(_build_config(plain, tokenizer)[0], recipe.base_ratio, recipe.base_heads)
        return _build_config(replace(plain, budgets=budgets), tokenizer)
    names = ("budgets", "residual", "layer_order", "budget_norms", "token_routing")
    options = {name: getattr(recipe, name) for name in names if getattr(recipe, name) is not None}
    if recipe.init_delta_from_target:
        config, model_class = read_config(recipe.target_model_path, **options)
    elif recipe.base_model_path is not None:
        config, model_class = read_config(recipe.base_model_path, **options)
        for name in SHAPES:
            given = getattr(recipe, name)
            if given is not None and given != getattr(config, name):
                raise ValueError(
                    f"{name} {given} contradicts the checkpoint {recipe.base_model_path!r}, which has "
                    f"{getattr(config, name)}; leave it out: shapes are read from the checkpoint"
                )
    else:
        config_class, model_class = CLASSES[recipe.architecture]
        hidden = recipe.hidden_size or 256
        shape = {
            "hidden_size": hidden,
            "num_hidden_layers": recipe.num_hidden_layers or 6,
            "num_attention_heads": recipe.num_attention_heads or max(1, hidden // HEAD_DIM),
            "intermediate_size": recipe.intermediate_size or hidden * EXPANSION[recipe.architecture] // 2,
            # 0.02 is for the width of BERT-base; from it a narrow model takes long to use any context.
            "initializer_range": recipe.initializer_range or 0.02 * (768 / hidden) ** 0.5,
        }
        config = config_class(**shape, **_vocabulary(recipe, tokenizer), **options)
        if recipe.architecture == "bert":
            config.max_position_embeddings = max(config.max_position_embeddings, recipe.max_length)
    if recipe.pretokenized_path is not None:
        load_packing_info(recipe.pretokenized_path).check_model(config)
    elif recipe.max_length > config.max_position_embeddings:
        raise ValueError(
            f"max_length {recipe.max_length} is more than the model has positions; give at most "
            f"{config.max_position_embeddings}"
        )
    if tokenizer is not None:
        check_vocabulary(len(tokenizer), config)
    return config, model_class


def _vocabulary(recipe: DeltaRecipe, tokenizer: PreTrainedTokenizerBase | None) -> dict[str, int]:
    if tokenizer is None:
        # Ids of ModernBERT's own vocabulary would lie outside a small one.
        return {"vocab_size": recipe.vocab_size, "pad_token_id": 0} | _ids(recipe, 0, 0)
    found = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    return found | _ids(recipe, tokenizer.cls_token_id, tokenizer.sep_token_id)


def _ids(recipe: DeltaRecipe, first: int | None, last: int | None) -> dict[str, int | None]:
    if recipe.architecture == "bert":
        return {}
    return {"cls_token_id": first, "sep_token_id": last, "bos_token_id": first, "eos_token_id": last}


def build_model(recipe: DeltaRecipe, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model where training starts; `sparse_prediction` is on, see [`DeltaRecipe`] for the rest."""
    if recipe.init_delta_from_target:
        return _grown(recipe)
    config, model_class = build_config(recipe, tokenizer)
    config.sparse_prediction = True
    options = {"attn_implementation": recipe.attn_implementation}
    # Of what a checkpoint does not have, too, such as a head or previews.
    torch.manual_seed(recipe.seed)
    if recipe.base_model_path is None:
        return model_class._from_config(config, **options)
    with reading_weights(recipe.base_model_path):
        return model_class.from_pretrained(recipe.base_model_path, config=config, dtype=torch.float32, **options)


def _grown(recipe: DeltaRecipe) -> PreTrainedModel:
    """The checkpoint in the shape of the target, with the target's delta behind closed gates."""
    paths = (recipe.base_model_path, recipe.target_model_path)
    checkpoints = []
    for path in paths:
        with reading_weights(path):
            checkpoints.append(AutoModelForMaskedLM.from_pretrained(path, dtype=torch.float32))
    torch.manual_seed(recipe.seed)
    model = hierarchical_init(checkpoints, recipe.budgets, gates=True)
    model.config.sparse_prediction = True
    model.set_attn_implementation(recipe.attn_implementation)
    return model


def load_teacher(recipe: DeltaRecipe) -> PreTrainedModel | None:
    """The model to distil from, if the recipe names one.

    Raises:
        OSError: If it cannot be loaded.
    """
    path = recipe.target_model_path
    if path is None:
        return None
    with reading_weights(path):
        return AutoModelForMaskedLM.from_pretrained(
            path, attn_implementation=recipe.attn_implementation, dtype=torch.float32
        )


def _check_same_vocabulary(tokenizer: PreTrainedTokenizerBase, path: str, name: str) -> None:
    """Raise `ValueError` if a checkpoint has a tokenizer with other ids than `tokenizer`."""
    other = load_tokenizer(path)
    if vocabulary_fingerprint(other) != vocabulary_fingerprint(tokenizer):
        raise ValueError(
            f"the tokenizer {str(tokenizer.name_or_path)!r} ({len(tokenizer)} tokens) has another vocabulary than "
            f"that of {name} {path!r} ({len(other)} tokens); use the same"
        )


def export_forms(config: PreTrainedConfig, model_class: type[PreTrainedModel]) -> dict[str, str]:
    """In which form each level can be exported: `"stock"`, `"stock_padded"` or `"remote_code"`.

    Those that are not stock are said in the log, with the reason.
    """
    with torch.device("meta"):
        model = model_class(config)
    forms = {}
    for level in config.levels:
        forms[level] = "remote_code"
        for form, padded in (("stock_padded", True), ("stock", False)):
            try:
                model.to_stock(level, padded=padded)
                forms[level] = form
            except ValueError as error:
                logger.warning("%s", error)
                break
    return forms


def is_nested(path: str) -> bool:
    """Whether a checkpoint has budgets of its own."""
    return "budgets" in PreTrainedConfig.get_config_dict(path)[0]


def find_tokenizer(recipe: DeltaRecipe) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a recipe; `None` where one is to be trained.

    Raises:
        OSError: If it cannot be loaded.
        ValueError: If its vocabulary is not that of the packed rows, the checkpoint and the teacher, or a row is too
            short for it.
    """
    packed = None if recipe.pretokenized_path is None else load_packing_info(recipe.pretokenized_path)
    names = [recipe.tokenizer, packed and packed.tokenizer, recipe.base_model_path, recipe.target_model_path]
    name = next((name for name in names if name), None)
    if name is None:
        if recipe.pretokenized_path is not None:
            raise ValueError(f"{recipe.pretokenized_path} does not say which tokenizer made it; give tokenizer")
        check_vocab_size(recipe.vocab_size)
        if recipe.max_length < 3:
            raise ValueError(f"max_length must be at least 3, but is {recipe.max_length}")
        return None
    tokenizer = load_tokenizer(name)
    PackedMlmCollator(tokenizer)  # it must have a mask token
    if packed is not None and vocabulary_fingerprint(tokenizer) != packed.vocabulary_fingerprint:
        raise ValueError(
            f"the tokenizer {name!r} ({len(tokenizer)} tokens) is not the one that {recipe.pretokenized_path} was "
            f"packed with ({packed.vocab_size} tokens); give that one"
        )
    for option in ("base_model_path", "target_model_path"):
        path = getattr(recipe, option)
        if path not in (None, name) and (option == "target_model_path" or _has_tokenizer(path)):
            _check_same_vocabulary(tokenizer, path, option)
    if packed is None:
        check_max_length(recipe.max_length, tokenizer)
    return tokenizer


def _has_tokenizer(path: str) -> bool:
    """Whether a checkpoint carries its tokenizer; of one on the Hub it is taken for granted."""
    folder = Path(path)
    return not folder.is_dir() or any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt"))
