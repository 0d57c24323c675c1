"""Encoders of each embedding convention, made of one SentenceTransformer by its modules."""

from pathlib import Path
from typing import TYPE_CHECKING

from .base_models import load_base_model
from .embedding_conventions import check_convention_name


if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn


GTR_BASE_MODEL = "sentence-transformers/gtr-t5-base"


def load_encoder(
    name_or_path: str | Path = GTR_BASE_MODEL, convention: str | None = None, device: str | None = None
) -> "SentenceTransformer":
    """Loads an encoder of texts that follows a convention.

    Args:
        name_or_path (`str` or `Path`, *optional*, defaults to `"sentence-transformers/gtr-t5-base"`):
            What [`load_base_model`] accepts: a local folder or a Hub id.
        convention (`str`, *optional*):
            The convention; by default what the model gives by itself.
        device (`str`, *optional*):
            Where to put it; sentence-transformers chooses by default.

    Returns:
        `SentenceTransformer`: the encoder in evaluation mode.

    Raises:
        OSError: as [`load_base_model`].
        ValueError: if there is no such convention, or the model cannot follow it.
    """
    check_convention_name(convention)
    return with_convention(load_base_model(name_or_path, device), convention)


def detect_convention(model: "SentenceTransformer") -> str | None:
    """Convention that a model follows, by its modules.

    Args:
        model (`SentenceTransformer`):
            The model.

    Returns:
        `str`: one of `EMBEDDING_CONVENTIONS`; `None` if it is none of them, such as a model that pools otherwise, that
        cuts its embeddings, or whose Dense has a bias or an activation.
    """
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    if model.truncate_dim is not None or not _has_mean_pooling(model):
        return None
    after = list(model)[2:]
    if not after:
        return "raw_mean"
    if not isinstance(after[-1], Normalize) or after[-1].module_output_name != "sentence_embedding":
        return None
    if len(after) == 1:
        return "mean_norm"
    return "st_dense_norm" if len(after) == 2 and isinstance(after[0], Dense) and _is_plain(after[0]) else None


def with_convention(model: "SentenceTransformer", convention: str | None) -> "SentenceTransformer":
    """The same encoder in another convention: modules after its pooling are taken out or put in.

    Args:
        model (`SentenceTransformer`):
            A model with mean pooling; for `"st_dense_norm"` also with a Dense without bias and activation after it.
        convention (`str`, *optional*):
            The convention; `None` is what the model gives.

    Returns:
        `SentenceTransformer`: `model` itself where it follows the convention; else a new one that shares its weights,
        in evaluation mode and of full width.

    Raises:
        ValueError: if there is no such convention, or the model has not the modules for it.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    check_convention_name(convention)
    if convention in (None, detect_convention(model)):
        return model
    parts = list(model)
    if not _has_mean_pooling(model):
        raise ValueError(f"{convention!r} needs mean pooling right after the transformer, but {_described(model)}")
    modules = parts[:2]
    if convention == "st_dense_norm":
        if len(parts) < 3 or not isinstance(parts[2], Dense) or not _is_plain(parts[2]):
            raise ValueError(
                f"{convention!r} needs a Dense without bias and activation after the pooling, but {_described(model)}"
            )
        modules.append(parts[2])
    if convention != "raw_mean":
        modules.append(Normalize())
    encoder = SentenceTransformer(
        modules=modules,
        device=str(model.device),
        prompts=dict(model.prompts),  # type: ignore[arg-type]  # where it may hold None, as in the model itself
        default_prompt_name=model.default_prompt_name,
        similarity_fn_name=model.similarity_fn_name,
    )
    return encoder.eval()


def _has_mean_pooling(model: "SentenceTransformer") -> bool:
    from sentence_transformers.base.modules import InputModule
    from sentence_transformers.sentence_transformer.modules import Pooling

    parts = list(model)
    return (
        len(parts) > 1
        and isinstance(parts[0], InputModule)
        and isinstance(parts[1], Pooling)
        and parts[1].pooling_mode == "mean"
    )


def _is_plain(dense: "nn.Module") -> bool:
    from torch import nn

    names = (dense.module_input_name, dense.module_output_name)
    plain = isinstance(dense.activation_function, nn.Identity) and not dense.bias and not dense.use_residual
    return plain and names == ("sentence_embedding", "sentence_embedding")


def _described(model: "SentenceTransformer") -> str:
    """The model in an error: its modules, and the convention if it has one."""
    pooling = [getattr(part, "pooling_mode", None) for part in model]
    names = [type(part).__name__ + (f"({mode})" if mode else "") for part, mode in zip(model, pooling, strict=True)]
    found = detect_convention(model)
    return f"the model is {', '.join(names)}" + (f", which is {found!r}" if found else "")
