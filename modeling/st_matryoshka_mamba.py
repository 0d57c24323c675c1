"""The Matryoshka Mamba encoder as a sentence-transformers module."""

import copy
import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from transformers import PreTrainedTokenizerBase

from .modeling_matryoshka_mamba import MatryoshkaMambaModel
from .st_repo_code import copy_code_to_root


MODEL_INPUTS = ["input_ids", "attention_mask"]
# In effect no limit, and a number that every tokenizer takes.
MAX_SEQ_LENGTH = 2**20


class MatryoshkaMambaTransformer(Transformer):
    """[`~sentence_transformers.base.modules.Transformer`] around a [`MatryoshkaMambaModel`], which pools by itself:
    the first and only module of a sentence-transformers model.

    Width and output dimension are chosen per call: `model.encode(texts, level="w0.5", matryoshka_dim=64)`. Embeddings
    have unit length. `truncate_dim` of sentence-transformers works as well: it cuts the largest embedding to any
    prefix, of the same direction but shorter than unit length unless `normalize_embeddings=True`.

    Long texts go through the encoder segment by segment, so that only `max_seq_length` cuts them. An empty text is
    embedded as the special tokens of the tokenizer; without any, its embedding is 0.

    Args:
        model_name_or_path (`str`):
            A folder or a Hub id with a [`MatryoshkaMambaModel`] and its tokenizer.
        kwargs:
            As for [`~sentence_transformers.base.modules.Transformer`].

    Raises:
        ValueError: If it is another model.
    """

    forward_kwargs = {"level", "matryoshka_dim"}

    def __init__(self, model_name_or_path: str, **kwargs):
        kwargs["modality_config"] = {"text": {"method": "forward", "method_output_name": "embeddings"}}
        kwargs["module_output_name"] = "sentence_embedding"
        super().__init__(model_name_or_path, **kwargs)
        if self.model.config.model_type != MatryoshkaMambaModel.config_class.model_type:
            raise ValueError(
                f"{model_name_or_path} holds a {type(self.model).__name__}, but this module takes a "
                "MatryoshkaMambaModel; use the modules Transformer and Pooling for it"
            )

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the levels, the largest last."""
        return tuple(self.model.config.levels)

    @property
    def matryoshka_dims(self) -> list[int]:
        """The trained output dimensions, the smallest first."""
        return list(self.model.config.matryoshka_dims)

    def get_embedding_dimension(self) -> int:
        """Dimensions of the embeddings that calls without `matryoshka_dim` get."""
        return self.matryoshka_dims[-1]

    def preprocess(self, inputs: Sequence[str], *args, **kwargs) -> dict[str, torch.Tensor | Any]:
        """Tensors of shape `(batch, length)`, with at least one column."""
        features = super().preprocess(inputs, *args, **kwargs)
        if inputs and not features["input_ids"].shape[1]:
            # Empty texts only, and no special tokens: a column of padding.
            features |= {name: torch.zeros(len(inputs), 1, dtype=torch.long) for name in MODEL_INPUTS}
        return features

    def forward(
        self,
        features: dict[str, torch.Tensor | Any],
        level: int | str | None = None,
        matryoshka_dim: int | None = None,
    ) -> dict[str, torch.Tensor | Any]:
        """
        Args:
            features (`dict`): What `preprocess` returned.
            level (`int` or `str`, *optional*): The level to compute, an index or a name; by default the largest, or
                that of the dimension (`dim_widths` of the model's config).
            matryoshka_dim (`int`, *optional*): One of the trained dimensions; the largest by default.

        Returns:
            `dict`: The features, with `"sentence_embedding"` of shape `(batch, matryoshka_dim)` and unit length.

        Raises:
            ValueError: If the level does not exist or the dimension was not trained.
        """
        inputs = {name: features[name] for name in MODEL_INPUTS}
        output = self.model(**inputs, level=level, matryoshka_dim=matryoshka_dim, return_tokens=False)
        features["sentence_embedding"] = output.embeddings
        return features

    @torch.inference_mode()
    def encode_all_dims(
        self,
        texts: str | Sequence[str],
        level: int | str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
    ) -> dict[int, Any]:
        """The embeddings of all dimensions: `model[0].encode_all_dims(texts)[64]`.

        One pass computes them all, unless the dimensions have levels of their own (`dim_widths` of the model's
        config) and `level` is not given.

        Args:
            texts (`str` or `Sequence[str]`): One text, or several.
            level (`int` or `str`, *optional*): The level to compute, as in [`~MatryoshkaMambaTransformer.forward`].
            prompt (`str`, *optional*): What to put before each text.
            batch_size (`int`, *optional*, defaults to 32): Texts a pass.

        Returns:
            `dict[int, np.ndarray]`: For each dimension float32 embeddings of unit length, of shape
            `(len(texts), dim)`, or `(dim,)` for one text.

        Raises:
            ValueError: If the level does not exist.
        """
        if isinstance(texts, str):
            return {dim: rows[0] for dim, rows in self.encode_all_dims([texts], level, prompt).items()}
        self.eval()
        # Texts of one length together, as in `encode`.
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        found = {dim: [torch.zeros(0, dim)] for dim in self.matryoshka_dims}
        for start in range(0, len(order), batch_size):
            features = self.preprocess([texts[index] for index in order[start : start + batch_size]], prompt=prompt)
            inputs = {name: features[name].to(self.model.device) for name in MODEL_INPUTS}
            for dim, embeddings in self.model.embed_all(**inputs, level=level).items():
                found[dim].append(embeddings.cpu())
        places = torch.tensor(order, dtype=torch.long).argsort()
        return {dim: torch.cat(parts)[places].numpy() for dim, parts in found.items()}

    def save(self, output_path: str, *args, safe_serialization: bool = True, **kwargs) -> None:
        """Write weights (always as safetensors), tokenizer, configs and code."""
        super().save(output_path)
        copy_code_to_root(self, output_path)


def mamba_tokenizer(
    tokenizer: PreTrainedTokenizerBase, max_seq_length: int = MAX_SEQ_LENGTH
) -> PreTrainedTokenizerBase:
    """A copy of a tokenizer that gives what a [`MatryoshkaMambaModel`] takes, and leaves long texts whole.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Often that of a transformer, with a limit and a third input.
        max_seq_length (`int`, *optional*, defaults to 1048576): Number of tokens at which texts are cut.
    """
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length, tokenizer.model_input_names = max_seq_length, list(MODEL_INPUTS)
    # What is saved.
    tokenizer.init_kwargs["model_input_names"] = list(MODEL_INPUTS)
    return tokenizer


def mamba_sentence_encoder(
    model: MatryoshkaMambaModel,
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int = MAX_SEQ_LENGTH,
    prompts: dict[str, str] | None = None,
) -> SentenceTransformer:
    """A sentence-transformers model around a Matryoshka Mamba encoder that is in memory.

    Args:
        model ([`MatryoshkaMambaModel`]): The encoder; its weights are copied.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer; it is left alone.
        max_seq_length (`int`, *optional*, defaults to 1048576): Number of tokens at which texts are cut. The default
            leaves long texts whole: the encoder takes them segment by segment.
        prompts (`dict[str, str]`, *optional*): Texts to put before others, by name.

    Returns:
        `SentenceTransformer`: A new model on the same device, in evaluation mode.

    Raises:
        ValueError: If the tokenizer has no padding token or more tokens than the model.
    """
    if tokenizer.pad_token is None:
        raise ValueError("the tokenizer has no padding token, without which texts of several lengths make no batch")
    if len(tokenizer) > model.config.vocab_size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, but the model knows {model.config.vocab_size}; give the "
            "tokenizer that the model was trained with"
        )
    # Modules of sentence-transformers are built from files only.
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        mamba_tokenizer(tokenizer, max_seq_length).save_pretrained(folder)
        module = MatryoshkaMambaTransformer(folder)
    return SentenceTransformer(modules=[module], device=str(model.device), prompts=prompts).eval()


__all__ = ["MatryoshkaMambaTransformer", "mamba_sentence_encoder", "mamba_tokenizer"]
