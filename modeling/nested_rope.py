"""Rotary position embeddings whose leading channels are those of a smaller head."""

import torch
from transformers import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS


# Types that give a frequency the same whatever the size of the head and the length of the text.
ROPE_TYPES = ("default", "linear", "llama3")


def largest_halving(number: int) -> int:
    """The largest power of two that divides a number."""
    return number & -number


def frequency_order(pairs: int, order: str) -> list[int]:
    """Which frequency each pair of neighbouring channels of a head rotates with.

    With `"nested"` the low bits of the index are reversed: 0, n/2, n/4, 3n/4, ... Then half of the pairs have every
    other frequency, which are the frequencies of a stock model with heads of half the size and the same base; a
    quarter has every fourth, and so on, as often as `pairs` can be halved. With `"prefix"` they have the first ones.

    Args:
        pairs (`int`): Half of the channels.
        order (`str`): `"nested"` or `"prefix"`.

    Returns:
        `list[int]`: Indices of frequencies, the highest frequency 0.
    """
    if order == "prefix":
        return list(range(pairs))
    step = largest_halving(pairs)
    bits = step.bit_length() - 1
    starts = [int(f"{number:0{bits}b}"[::-1], 2) if bits else 0 for number in range(step)]
    return [index for start in starts for index in range(start, pairs, step)]


def stock_channels(pairs: int, order: str) -> list[int]:
    """For each channel of a stock head, which has the first halves of all pairs by frequency and then the second ones,
    the channel of a nested head that is the same.

    Args:
        pairs (`int`): Half of the channels.
        order (`str`): As in [`frequency_order`].
    """
    places = sorted(range(pairs), key=frequency_order(pairs, order).__getitem__)
    return [2 * place for place in places] + [2 * place + 1 for place in places]


def rotary_table(config: PreTrainedConfig, device: torch.device) -> tuple[torch.Tensor, float]:
    """The frequency of each pair of channels of a head, `(head_dim / 2,)` in float32, and what cosine and sine are
    multiplied with.

    Args:
        config (`PreTrainedConfig`): Has `head_dim`, `rope_parameters` of one of the [`ROPE_TYPES`], `rope_order`.
        device (`torch.device`): Where it will be.
    """
    rope, scaling = config.rope_parameters, 1.0
    if rope["rope_type"] == "default":
        steps = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device)
        frequencies = rope["rope_theta"] ** (-steps / config.head_dim)
    else:
        frequencies, scaling = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, device)
    order = frequency_order(config.head_dim // 2, config.rope_order)
    return frequencies[torch.tensor(order, device=device)], scaling


def rotate_pairs(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotates each pair of neighbouring channels (RoFormer, arXiv 2104.09864, equation 15).

    Args:
        states (`torch.Tensor` of shape `(batch, heads, length, channels)`): Queries or keys.
        cos, sin (`torch.Tensor` of shape `(batch, 1, length, channels / 2)`): Of the angle of each pair.
    """
    first, second = states.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-1).flatten(-2)


__all__ = ["ROPE_TYPES", "frequency_order", "largest_halving", "rotary_table", "rotate_pairs", "stock_channels"]
