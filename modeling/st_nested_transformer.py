"""A nested text encoder as the first module of a sentence-transformers model."""

import os
import tempfile
from typing import Any

import torch
from sentence_transformers.base.modules import Transformer
from transformers import PreTrainedModel

from .st_repo_code import copy_code_to_root


class NestedTransformer(Transformer):
    """[`~sentence_transformers.base.modules.Transformer`] around a nested text encoder.

    The level is chosen per call: `model.encode(texts, level="w0.5-h6-d6")`. A level of a narrower residual stream
    gives narrower token embeddings, and whatever pools them gives narrower embeddings.

    Args:
        model_name_or_path (`str`):
            A folder or a Hub id with a nested encoder and its tokenizer.
        kwargs:
            As for [`~sentence_transformers.base.modules.Transformer`].

    Raises:
        ValueError: If the model has no levels.
    """

    forward_kwargs = {"level"}

    def __init__(self, model_name_or_path: str, **kwargs):
        super().__init__(model_name_or_path, **kwargs)
        if not hasattr(self.model.config, "levels"):
            raise ValueError(
                f"{model_name_or_path} holds a {type(self.model).__name__}, which has no levels; use the module "
                "Transformer for it, or turn the whole model into a nested one with nest_sentence_encoder"
            )

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the levels, the largest last."""
        return tuple(self.model.config.levels)

    def forward(
        self, features: dict[str, torch.Tensor | Any], level: int | str | None = None, **kwargs
    ) -> dict[str, torch.Tensor | Any]:
        """
        Args:
            features (`dict`): What `preprocess` returned.
            level (`int` or `str`, *optional*): The level to compute, an index or a name; the largest by default.
            kwargs: Further arguments of the model.

        Returns:
            `dict`: The features, with `"token_embeddings"` of shape `(batch, length, hidden)`.

        Raises:
            ValueError: If the level does not exist.
        """
        return super().forward(features, level=level, **kwargs)

    def save(self, output_path: str, *args, safe_serialization: bool = True, **kwargs) -> None:
        """Write weights (always as safetensors), tokenizer, configs and code."""
        super().save(output_path)
        copy_code_to_root(self, output_path)


def transformer_around(model: PreTrainedModel, like: Transformer, cls: type[Transformer]) -> Transformer:
    """A module around a model that is in memory, with the tokenizer and the settings of another module.

    Args:
        model (`PreTrainedModel`): The model; its weights are copied.
        like (`Transformer`): The module that has the tokenizer and the settings.
        cls (`type`): `Transformer` for a stock model, [`NestedTransformer`] for a nested one.
    """
    # Modules of sentence-transformers are built from files only.
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        like.processor.save_pretrained(folder)
        like.save_config(folder)
        return cls.load(os.fspath(folder), model_kwargs={"attn_implementation": model.config._attn_implementation})


__all__ = ["NestedTransformer", "transformer_around"]
