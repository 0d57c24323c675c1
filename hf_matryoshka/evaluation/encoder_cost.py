"""What a level of a text encoder costs: its arithmetic, and the measured latency beside it."""

from functools import partial

import torch
from transformers import PreTrainedModel

from ..data.evaluation_mode import evaluation_mode
from .cost import measure_latency


BATCH_SIZES = (1, 32)


def encoder_cost(
    model: PreTrainedModel, level: int | str | None = None, *, sequence_length: int = 128, repeats: int = 30
) -> dict[str, float]:
    """Cost of one level of a nested text encoder.

    Only the encoder is timed, without the head on top: what an application of the level runs, and small beside the
    logits of a whole vocabulary at 32 texts. The arithmetic of the same is in `encoder_flops_per_token`.

    Args:
        model (`PreTrainedModel`): A nested encoder, such as a [`DeltaBertForMaskedLM`].
        level (`int` or `str`, *optional*): The level; the largest by default.
        sequence_length (`int`, *optional*, defaults to 128): Tokens of a text.
        repeats (`int`, *optional*, defaults to 30): Timed calls, of which the median counts; 0 measures nothing.

    Returns:
        `dict[str, float]`: `parameters`, `macs` and `bytes_per_vector` of `model.cost`, `flops_per_token` (two for
        each multiplication, with the head), `encoder_flops_per_token` (without it), `latency_ms` of one text and
        `latency_ms_batch_32`.

    Raises:
        ValueError: If the level does not exist.
    """
    encoder = model.base_model
    cost: dict[str, float] = dict(model.cost(level, sequence_length=sequence_length))
    cost["flops_per_token"] = 2 * cost["macs"]
    cost["encoder_flops_per_token"] = 2 * encoder.cost(level, sequence_length=sequence_length)["macs"]
    if not repeats:
        return cost
    generator = torch.Generator().manual_seed(0)
    for batch_size in BATCH_SIZES:
        ids = torch.randint(model.config.vocab_size, (batch_size, sequence_length), generator=generator)
        ids = ids.to(model.device)
        with evaluation_mode(encoder):
            latency = measure_latency(partial(encoder, input_ids=ids, level=level), repeats)
        cost["latency_ms" if batch_size == 1 else f"latency_ms_batch_{batch_size}"] = latency
    return cost
