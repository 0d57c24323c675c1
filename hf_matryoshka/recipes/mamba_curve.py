"""How far the embeddings of a student agree with its teacher, by width and output dimension."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import rankdata

from ..data.embedding_batches import EmbeddingCollator, EmbeddingDataset
from ..evaluation.bootstrap import bootstrap_mean
from ..evaluation.curve import Curve, LevelPoint
from ..modeling import MatryoshkaMambaModel


# Each text is compared with all others, so that the work is the square of their number.
MAX_TEXTS = 1000


def rank_agreement(embeddings: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Spearman's correlation, for each text, of its cosines to all other texts with those of a teacher.

    Args:
        embeddings (`np.ndarray` of shape `(texts, dim)`): At least three.
        targets (`np.ndarray` of shape `(texts, teacher_dim)`): The teacher's.

    Returns:
        `np.ndarray` of shape `(texts,)`: From -1 to 1; 0 where all cosines of a text are equal.
    """

    def ranks(vectors: np.ndarray) -> np.ndarray:
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        others = (unit @ unit.T)[~np.eye(len(unit), dtype=bool)].reshape(len(unit), -1)
        centred = rankdata(others, axis=1) - (others.shape[1] + 1) / 2
        return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)

    return (ranks(embeddings) * ranks(targets)).sum(axis=1)


@torch.no_grad()
def agreement_curve(
    model: MatryoshkaMambaModel, texts: EmbeddingDataset, rows: Sequence[int], batch_size: int
) -> tuple[Curve, dict[str, dict[str, float]]]:
    """[`rank_agreement`] of held-out texts.

    Args:
        model ([`MatryoshkaMambaModel`]): The student, in evaluation mode.
        texts ([`EmbeddingDataset`]): Texts with the teacher's embeddings.
        rows (`Sequence[int]`): Those that are held out, at least three; the first 1000 are compared.
        batch_size (`int`): Texts a forward pass.

    Returns:
        `tuple`: The curve of the widths at the largest dimension, and the means by width and dimension.
    """
    rows = list(rows)[:MAX_TEXTS]
    collator = EmbeddingCollator(model.config.pad_token_id)
    batches = [
        collator([texts[row] for row in rows[start : start + batch_size]]) for start in range(0, len(rows), batch_size)
    ]
    targets = np.stack([texts[row]["embedding"] for row in rows])
    points, table = [], {}
    for level in model.config.levels:
        found: dict[int, list[np.ndarray]] = {dim: [] for dim in model.config.matryoshka_dims}
        for batch in batches:
            ids, mask = (batch[name].to(model.device) for name in ("input_ids", "attention_mask"))
            for dim, embeddings in model.embed_all(ids, mask, level=level).items():
                found[dim].append(embeddings.float().cpu().numpy())
        values = {dim: rank_agreement(np.concatenate(parts), targets) for dim, parts in found.items()}
        table[level] = {f"d{dim}": float(each.mean()) for dim, each in values.items()}
        own = values[model.config.matryoshka_dims[-1]]
        points.append(LevelPoint(level, None, *bootstrap_mean(own), model.cost(level), own))
    return Curve(points, "spearman_to_teacher", "heldout", "ours"), table
