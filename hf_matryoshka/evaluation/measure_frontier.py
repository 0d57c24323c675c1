"""Measuring what each dimension and width of an encoder keeps and costs."""

import platform
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from tqdm.auto import tqdm

from ..data.evaluation_mode import evaluating
from ..data.retrieval import RetrievalDataset
from ..modeling.dimension_frontier import Frontier, FrontierPoint
from ..modeling.modeling_matryoshka_mamba import MatryoshkaMambaModel
from .cost import measure_latency
from .retrieval import check_split, score_retrieval


LENGTHS = (16, 64, 256, 1024)


def measure_frontier(
    model: MatryoshkaMambaModel,
    encode: Callable[[list[str], str], np.ndarray],
    dataset: RetrievalDataset,
    *,
    split: str = "test",
    k: int = 10,
    lengths: Sequence[int] = LENGTHS,
    repeats: int = 10,
    progress: bool = True,
) -> Frontier:
    """Quality of each dimension at each level on a retrieval data set, and the time to encode a text.

    Args:
        model ([`MatryoshkaMambaModel`]): The model, whose time is measured on its device.
        encode (`Callable`): `encode(texts, level)` gives embeddings of shape `(texts, largest dim)` at a level, for
            example `lambda texts, level: encoder.encode(texts, level=level)` of a `SentenceTransformer`. They are
            needed once a level: smaller dimensions are prefixes.
        dataset ([`~data.retrieval.RetrievalDataset`]): Held-out queries and documents with relevance.
        split (`str`, *optional*, defaults to `"test"`): Which queries.
        k (`int`, *optional*, defaults to 10): Cut-off of nDCG.
        lengths (`Sequence[int]`, *optional*, defaults to 16, 64, 256 and 1024): Tokens of the texts that are timed,
            one at a time.
        repeats (`int`, *optional*, defaults to 10): Timed calls, of which the median counts.
        progress (`bool`, *optional*, defaults to `True`): Whether to show progress.

    Returns:
        [`~modeling.dimension_frontier.Frontier`]: Set it as `model.frontier`; it is saved with the model.

    Raises:
        ValueError: If the split does not exist, or a length or `repeats` is not positive.
    """
    if not lengths or min(lengths) < 1:
        raise ValueError(f"lengths must be positive, but are {list(lengths)}")
    check_split(dataset, split)
    config, points = model.config, []
    queries, documents = list(dataset.queries), list(dataset.documents())
    total = len(config.levels) * len(config.matryoshka_dims)
    with evaluating(model), tqdm(total=total, desc="Frontier", disable=not progress) as bar:
        for level in config.levels:
            vectors = encode(queries, level), encode(documents, level)
            curve = score_retrieval(
                lambda full, dim, kind: full[:, :dim],
                *vectors,
                dataset,
                config.matryoshka_dims,
                system="ours",
                split=split,
                k=k,
            )[split]
            for point in curve.points:
                assert point.dim is not None and point.per_query is not None  # as in all retrieval
                latencies = _latencies(model, level, point.dim, lengths, repeats)
                points.append(FrontierPoint(level, point.dim, point.per_query.tolist(), latencies))
                bar.update()
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads" if model.device.type == "cpu" else "gpu"
    return Frontier(points, f"ndcg_at_{k}", f"{dataset.name} {split}", machine)


@torch.inference_mode()
def _latencies(
    model: MatryoshkaMambaModel, level: str, dim: int, lengths: Sequence[int], repeats: int
) -> dict[int, float]:
    generator, encode = torch.Generator().manual_seed(0), cast(Callable[..., Any], model)
    found = {}
    for length in lengths:
        ids = torch.randint(1, model.config.vocab_size, (1, length), generator=generator).to(model.device)
        options: dict[str, Any] = {"level": level, "matryoshka_dim": dim, "return_tokens": False}
        found[length] = measure_latency(partial(encode, ids, **options), repeats, warmup=1)
    return found
