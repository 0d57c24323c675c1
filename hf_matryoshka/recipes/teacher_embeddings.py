"""What a teacher says about texts."""

import copy

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from ..data.embed import embed_texts
from .cpu_memory import keep_freed_memory


def teacher_embeddings(
    teacher: SentenceTransformer, texts: list[str], bf16: bool = False, progress: bool = True
) -> np.ndarray:
    """Embeddings of texts, encoded once and kept in the cache.

    Args:
        teacher (`SentenceTransformer`): The model; it is left alone.
        texts (`list[str]`): The texts.
        bf16 (`bool`, *optional*, defaults to `False`): Whether it computes in bfloat16, as the training does: faster
            on a CPU that has it.
        progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.

    Returns:
        `np.ndarray` of shape `(texts, dim)`: float32.
    """
    if teacher.device.type == "cpu":
        keep_freed_memory()
    teacher = copy.deepcopy(teacher).to(torch.bfloat16) if bf16 else teacher
    # Texts of one length together: several files of the cache are encoded with half of the padding.
    order = np.argsort([-len(text) for text in texts], kind="stable")
    encoded = embed_texts(teacher, [texts[index] for index in order], batch_size=64, progress=progress)
    embeddings = np.empty_like(encoded)
    embeddings[order] = encoded
    return embeddings
