"""An MTEB encoder that encodes each text once at full width and shows any level of it."""

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer

from ..data.base_models import model_fingerprint
from ..data.embed import embed_texts


if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import BatchedInput
    from torch.utils.data import DataLoader

# Full-width vectors and a level in; the level's vectors out, of unit length.
LevelTransform = Callable[[np.ndarray, int | str], np.ndarray]


class FullWidthEncoder:
    """Full-width vectors of texts; each text goes through the model once, however many levels and tasks ask for it.

    Args:
        model (`SentenceTransformer`): The embedding model.
        cache_dir (`str` or `os.PathLike`, *optional*): Folder that keeps the vectors over runs; by default they are
            kept in memory only.
        batch_size (`int`, *optional*, defaults to 32): Texts a batch.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.
        level (`str`, *optional*): Level of a nested encoder; the largest by default.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        cache_dir: str | os.PathLike | None = None,
        batch_size: int = 32,
        progress: bool = True,
        level: str | None = None,
    ):
        self.model = model
        self.cache_dir = cache_dir
        self.batch_size = batch_size
        self.progress = progress
        self.settings: dict[str, Any] = {} if level is None else {"level": level}
        self.fingerprint = " ".join([model_fingerprint(model), *self.settings.values()])
        self._vectors: dict[bytes, np.ndarray] = {}

    def encode(self, texts: Sequence[str], prompt: str | None = None) -> np.ndarray:
        """
        Args:
            texts (`Sequence[str]`): Texts.
            prompt (`str`, *optional*): Put before each text.

        Returns:
            `np.ndarray` of shape `(len(texts), width)`: float32.
        """
        keys = [hashlib.sha256(repr((prompt, text)).encode()).digest() for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._vectors}
        if missing:
            vectors = self._run(list(missing.values()), prompt)
            self._vectors.update(zip(missing, vectors, strict=True))
        return np.stack([self._vectors[key] for key in keys])

    def _run(self, texts: list[str], prompt: str | None) -> np.ndarray:
        if self.cache_dir is not None:
            return embed_texts(
                self.model,
                texts,
                cache_dir=self.cache_dir,
                batch_size=self.batch_size,
                prompt=prompt,
                progress=self.progress,
                **self.settings,
            )
        vectors = self.model.encode(
            texts,
            batch_size=self.batch_size,
            prompt=prompt,
            show_progress_bar=self.progress,
            convert_to_numpy=True,
            **self.settings,
        )
        return vectors.astype(np.float32, copy=False)


class CachedLevelEncoder(AbsEncoder):
    """One level of a model, as MTEB wants it.

    MTEB caches results under a model's name, revision and experiment. The name and revision that it takes from a local
    model are the same for every one, and do not know of levels; the scores of one would be given out for another. Here
    the revision is a hash of the content, and the width is the experiment.

    Args:
        model (`SentenceTransformer` or [`FullWidthEncoder`]): The embedding model; level views that share one
            `FullWidthEncoder` share its vectors.
        transform (`Callable`): `transform(vectors, level)` maps full-width vectors to the level's vectors, of unit
            length: an adaptor's level or a baseline.
        level (`int` or `str`): The level, passed to `transform`.
        name (`str`): Name of the model, `organisation/model`.
        embed_dim (`int`): Width of the level.
        revision (`str`, *optional*): What identifies the content; by default a hash of the model's weights and of what
            `transform` makes of fixed vectors.
        query_transform (`Callable`, *optional*): The same for queries of retrieval tasks, where they differ.

    Raises:
        ValueError: If the name is not of the form `organisation/model`.
    """

    def __init__(
        self,
        model: SentenceTransformer | FullWidthEncoder,
        transform: LevelTransform,
        level: int | str,
        *,
        name: str,
        embed_dim: int,
        revision: str | None = None,
        query_transform: LevelTransform | None = None,
    ):
        if "/" not in name:
            raise ValueError(f"name must be of the form organisation/model, but is {name!r}")
        self.encoder = model if isinstance(model, FullWidthEncoder) else FullWidthEncoder(model)
        self.model = self.encoder.model
        self.transform = transform
        self.query_transform = query_transform or transform
        self.level = level
        # Every kind of prompt that the model brings; mteb picks by task and by query or document.
        self.model_prompts, _ = self.validate_task_to_prompt_name(self.model.prompts, raise_for_invalid_keys=False)
        if revision is None:
            revision = content_revision(self.encoder, [self.transform, self.query_transform], [level])
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": name,
                "revision": revision,
                "embed_dim": embed_dim,
                "experiment_kwargs": {"embed_dim": embed_dim},
                "max_tokens": self.model.max_seq_length,
                "similarity_fn_name": ScoringFunction.COSINE,
                "framework": ["Sentence Transformers", "PyTorch"],
            }
        )

    def encode(
        self,
        inputs: "DataLoader[BatchedInput]",
        *,
        task_metadata: "TaskMetadata",
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs,
    ) -> np.ndarray:
        """
        Args:
            inputs (`DataLoader`): Batches with the key `"text"`.
            task_metadata (`TaskMetadata`): The task, which may choose a prompt.
            prompt_type (`PromptType`, *optional*): Query or document.

        Returns:
            `np.ndarray` of shape `(number of texts, embed_dim)`: float32, of unit length.

        Raises:
            ValueError: If another precision than float32 is asked for.
        """
        precision = kwargs.get("precision") or "float32"
        if precision != "float32":
            raise ValueError(f"precision {precision!r} is not possible here; evaluate a quantised baseline instead")
        texts = [text for batch in inputs for text in batch["text"]]
        prompt_name = self.get_prompt_name(task_metadata, prompt_type)
        prompt = (self.model_prompts or {})[prompt_name] or None if prompt_name else None
        vectors = self.encoder.encode(texts, prompt)
        transform = self.query_transform if prompt_type == PromptType.query else self.transform
        return transform(vectors, self.level)


def content_revision(
    encoder: FullWidthEncoder, transforms: Sequence[LevelTransform], levels: Sequence[int | str]
) -> str:
    """Hash of the model's weights and of what the transforms make of fixed vectors at the levels.

    Args:
        encoder ([`FullWidthEncoder`]): The model.
        transforms (`Sequence[Callable]`): Maps from full-width vectors and a level to vectors.
        levels (`Sequence[int | str]`): The levels.

    Returns:
        `str`: 40 hexadecimal digits.
    """
    width = encoder.model.get_embedding_dimension()
    assert width is not None  # of a model that embeds
    probe = np.random.default_rng(0).standard_normal((8, width)).astype(np.float32)
    probe /= np.linalg.norm(probe, axis=1, keepdims=True)
    digest = hashlib.sha256(encoder.fingerprint.encode())
    for transform in transforms:
        for level in levels:
            digest.update(f"{level}:".encode())
            digest.update(np.ascontiguousarray(transform(probe, level), dtype=np.float32).tobytes())
    return digest.hexdigest()[:40]
