"""What a level costs: its arithmetic, its measured latency, and the memory of an index."""

import statistics
import time
from collections.abc import Callable

import torch

from ..data.evaluation_mode import evaluating
from ..modeling.modeling_matryoshka_adaptor import MatryoshkaAdaptorModel
from ..modeling.modeling_matryoshka_funnel import MatryoshkaFunnelModel


def measure_latency(forward: Callable[[], object], repeats: int = 30, warmup: int = 3) -> float:
    """Median wall-clock time of a call.

    Args:
        forward (`Callable`): What to time; takes nothing.
        repeats (`int`, *optional*, defaults to 30): Number of timed calls.
        warmup (`int`, *optional*, defaults to 3): Calls before them.

    Returns:
        `float`: Milliseconds.

    Raises:
        ValueError: If `repeats` is not positive.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, but is {repeats}")
    times = []
    for number in range(warmup + repeats):
        _synchronise()
        start = time.perf_counter()
        forward()
        _synchronise()
        if number >= warmup:
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def _synchronise() -> None:
    # Kernels run asynchronously: without this only their launch would be timed.
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def index_memory_mb(bytes_per_vector: float, num_vectors: int) -> float:
    """Megabytes (10^6 bytes) of a flat index.

    Raises:
        ValueError: If `num_vectors` is not positive.
    """
    if num_vectors < 1:
        raise ValueError(f"num_vectors must be positive, but is {num_vectors}")
    return bytes_per_vector * num_vectors / 1e6


def level_cost(
    adaptor: MatryoshkaAdaptorModel | MatryoshkaFunnelModel,
    level: int | str | None = None,
    *,
    vectors: torch.Tensor | None = None,
    num_vectors: int | None = None,
    repeats: int = 30,
) -> dict[str, float]:
    """Cost of one level of an adaptor or a funnel.

    Args:
        adaptor ([`~modeling.MatryoshkaAdaptorModel`] or [`~modeling.MatryoshkaFunnelModel`]): The model.
        level (`int` or `str`, *optional*): The level; the largest by default.
        vectors (`torch.Tensor` of shape `(batch, embedding_dim)`, *optional*): What is timed; by default one vector.
        num_vectors (`int`, *optional*): Number of vectors in an index; with it the cost has `memory_mb`.
        repeats (`int`, *optional*, defaults to 30): Timed calls, of which the median counts; 0 measures nothing.

    Returns:
        `dict[str, float]`: `parameters`, `macs`, `bytes_per_vector` (float32), `latency_ms` of the model's forward
        (a funnel encodes and decodes; that of the base model is the same for every level and not in it) and
        `memory_mb`.

    Raises:
        ValueError: If the level does not exist or a number is not positive.
    """
    cost: dict[str, float] = dict(adaptor.cost(level))
    if num_vectors is not None:
        cost["memory_mb"] = index_memory_mb(cost["bytes_per_vector"], num_vectors)
    if repeats:
        if vectors is None:
            vectors = torch.randn(1, adaptor.config.embedding_dim, generator=torch.Generator().manual_seed(0))
        vectors = vectors.to(device=adaptor.device, dtype=adaptor.dtype)
        with evaluating(adaptor), torch.inference_mode():
            cost["latency_ms"] = measure_latency(lambda: adaptor(vectors, level=level), repeats)
    return cost
