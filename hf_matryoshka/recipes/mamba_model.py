"""The Matryoshka Mamba encoder of a recipe: random weights, the teacher's tokenizer and token embeddings."""

import copy
from dataclasses import asdict

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from transformers import PreTrainedTokenizerBase
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from ..modeling import MatryoshkaMambaConfig, MatryoshkaMambaModel
from ..surgery.adaptor_init import principal_rotation
from .mamba_recipe import MambaRecipe
from .text_options import TextOptions


# The options of a recipe that are no fields of a config.
OTHERS = {*TextOptions.__dataclass_fields__, "teacher_model_path", "rotate_teacher", "init_embeddings"}
OTHERS |= {"init_head", "pairs", "pair_fields"}


def take_tokenizer(teacher: SentenceTransformer) -> PreTrainedTokenizerBase:
    """A copy of the tokenizer of a teacher, without its limit of length.

    Raises:
        ValueError: If the teacher has none of transformers, or one without a padding token.
    """
    tokenizer = copy.deepcopy(teacher.tokenizer)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ValueError(
            f"the teacher's tokenizer is a {type(tokenizer).__name__}, which the student cannot take over; give a "
            "teacher with a tokenizer of transformers"
        )
    if tokenizer.pad_token_id is None:
        raise ValueError("the teacher's tokenizer has no padding token, which batches of texts need")
    tokenizer.model_max_length = VERY_LARGE_INTEGER
    return tokenizer


def build_config(recipe: MambaRecipe, tokenizer: PreTrainedTokenizerBase) -> MatryoshkaMambaConfig:
    """Config of the model of a recipe.

    Raises:
        ValueError: If a size has no valid value, or the sizes do not fit together.
    """
    fields = {name: value for name, value in asdict(recipe).items() if name not in OTHERS and value is not None}
    try:
        return MatryoshkaMambaConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **fields)
    except StrictDataclassError as error:
        # A config wraps what its validators say into two lines that name the validator.
        raise ValueError(str(error.__cause__ or error)) from error


def build_model(
    recipe: MambaRecipe, config: MatryoshkaMambaConfig, teacher: SentenceTransformer
) -> MatryoshkaMambaModel:
    """A new model, by the seed of the recipe.

    Raises:
        ValueError: If the token embeddings of a teacher are asked for that has none.
    """
    source = teacher_token_embeddings(teacher)
    if source is None and recipe.init_embeddings:
        raise ValueError(
            f"init_embeddings needs a teacher that starts with a Transformer, but this one starts with a "
            f"{type(teacher[0]).__name__}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = MatryoshkaMambaModel(config)
    fits = source is not None and source.shape[1] == config.hidden_size
    if fits if recipe.init_embeddings is None else recipe.init_embeddings:
        init_token_embeddings(model, source)
    return model


def teacher_token_embeddings(teacher: SentenceTransformer) -> torch.Tensor | None:
    """Token embeddings of a teacher, `(vocabulary, dim)`; `None` if it does not start with a `Transformer`."""
    if not isinstance(teacher[0], Transformer):
        return None
    return teacher[0].model.get_input_embeddings().weight.detach().float().cpu()


@torch.no_grad()
def init_token_embeddings(model: MatryoshkaMambaModel, source: torch.Tensor) -> None:
    """Starts the token embeddings of a model from those of another one with the same tokenizer.

    Wider ones are projected onto their principal directions; narrower ones are the leading columns, and the others
    stay random. They are scaled to a mean square of 1: what a random block adds to the residual stream is about as
    large, and would drown smaller ones, which a few steps of AdamW would change beyond recognition. Padding stays 0.

    Args:
        model ([`MatryoshkaMambaModel`]): The model, changed in place.
        source (`torch.Tensor` of shape `(vocabulary, dim)`): The other's.
    """
    weight, padding = model.embeddings.weight, model.config.pad_token_id
    source = source[: len(weight)].to(weight.dtype)
    if source.shape[1] > weight.shape[1]:
        rotation = torch.from_numpy(np.ascontiguousarray(principal_rotation(source.numpy())[: weight.shape[1]]))
        source = source @ rotation.T.to(weight.dtype)
    source = source / source.square().mean().sqrt()
    weight[: len(source), : source.shape[1]] = source
    weight[padding] = 0
