"""Token-conditional compute: which tokens a layer runs at the size of its level, and which at the smallest size.

A token passes through a layer either with the heads and feed-forward columns of the level, or with those of the
smallest level (and past a layer that the smallest level does not have). Keys and values are those of all tokens. This
is Mixture-of-Depths (arXiv 2404.02258) with the smallest level in place of the identity; an encoder sees whole texts,
so that taking the top tokens of a text is no look into the future.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig

from .nested_layers import NestedLinear


# Attention that takes a mask with fewer queries than keys.
ROUTED_ATTENTION = ("eager", "sdpa")


class ResidualPreview(nn.Module):
    r"""Predicts from the input of a layer how much its delta would change a token: \\( \log(1 + \|\Delta\|) \\).

    Args:
        config (`PreTrainedConfig`): Its `hidden_size` and `preview_rank`.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.down = NestedLinear(config.hidden_size, config.preview_rank, bias=False)
        self.up = nn.Linear(config.preview_rank, 1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`hidden_states` of shape `(batch, length, width)` to predictions of shape `(batch, length)`."""
        return F.softplus(self.up(F.gelu(self.down(hidden_states)))).squeeze(-1)


class TokenRouting:
    """How one forward routes its tokens, and what it noted: make a new one for each.

    Args:
        share (`float`, *optional*, defaults to 1.0): Part of the tokens of a text, rounded up, that run at the size of
            the level: those whose delta is predicted to be the largest. At 1.0 the forward is that without routing.
        temperature (`float`, *optional*, defaults to 1.0): Of the soft share that `soft_shares` notes.

    Attributes:
        shares (`list[torch.Tensor]`): For each routed layer, the part of the tokens that ran at the larger size.
        soft_shares (`list[torch.Tensor]`): The same as the mean of a sigmoid of the predictions, with a gradient.
        preview_losses (`list[torch.Tensor]`): In training, the squared error of each layer's predictions.

    Raises:
        ValueError: If `share` is not above 0 and up to 1, or `temperature` not positive.
    """

    def __init__(self, share: float = 1.0, temperature: float = 1.0):
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0 and up to 1, but is {share}")
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, but is {temperature}")
        self.share = share
        self.temperature = temperature
        self.shares: list[torch.Tensor] = []
        self.soft_shares: list[torch.Tensor] = []
        self.preview_losses: list[torch.Tensor] = []

    def preview_loss(self) -> torch.Tensor:
        """Mean of `preview_losses`; raises `ValueError` if no layer was routed in training."""
        if not self.preview_losses:
            raise ValueError("no layer was routed in training, so there is no preview loss")
        return torch.stack(self.preview_losses).mean()

    def route(
        self,
        preview: ResidualPreview,
        hidden_states: torch.Tensor,
        real: torch.Tensor,
        large: Callable[[torch.Tensor | None], torch.Tensor],
        small: Callable[[torch.Tensor | None], torch.Tensor] | None,
        training: bool,
    ) -> torch.Tensor:
        """What a layer gives when its tokens are routed.

        Args:
            preview ([`ResidualPreview`]): That of the layer.
            hidden_states (`torch.Tensor` of shape `(batch, length, width)`): Its input.
            real (`torch.Tensor` of shape `(batch, length)`): Where there is no padding.
            large, small (`Callable`): The layer at either size, from positions of shape `(batch, count)` to outputs of
                shape `(batch, count, width)`, or from `None` to those of all tokens. No `small`: the input itself.
            training (`bool`): Whether to run both on all tokens, so that the preview learns from all.
        """
        scores = preview(hidden_states.detach())
        counts = (self.share * real.sum(dim=1)).ceil().long()
        order = scores.detach().masked_fill(~real, -math.inf).argsort(dim=1, descending=True, stable=True)
        ranks = order.argsort(dim=1)
        chosen = ranks < counts[:, None]
        self.shares.append(chosen.sum() / real.sum())
        last = scores.detach().gather(1, order).gather(1, (counts[:, None] - 1).clamp(min=0))
        self.soft_shares.append(torch.sigmoid((scores - last) / self.temperature)[real].mean())
        if training:
            full = large(None)
            base = hidden_states if small is None else small(None)
            size = (full - base).detach().float().norm(dim=-1)
            self.preview_losses.append(F.mse_loss(scores[real].float(), size[real].log1p()))
            return torch.where(chosen.unsqueeze(-1), full, base)
        length = hidden_states.shape[1]
        groups = [(order[:, : int(counts.max())], counts, large)]
        if small is not None:
            # The other tokens, the first ones of each row being its padding or those that are predicted to gain least.
            groups.append((order.flip(1)[:, : length - int(counts.min())], length - counts, small))
        # One place more, for what rows with fewer tokens in a group have too many of.
        output = F.pad(hidden_states, (0, 0, 0, 1))
        for places, count, run in groups:
            if places.shape[1]:
                spare = torch.arange(places.shape[1], device=places.device) >= count[:, None]
                targets = places.masked_fill(spare, length).unsqueeze(-1)
                found = run(places).to(output.dtype)
                output = output.scatter(1, targets.expand(-1, -1, found.shape[-1]), found)
        return output[:, :length]


def run_layer(
    layer: nn.Module,
    run: Callable[..., torch.Tensor],
    sizes: tuple[int, int],
    hidden_states: torch.Tensor,
    routing: TokenRouting | None,
    real: torch.Tensor | None,
) -> torch.Tensor:
    """What a layer gives at the size of its level, or, with a routing, some tokens at the smallest one.

    Args:
        layer (`nn.Module`): With its `preview` and `base_sizes`, the heads and columns of the smallest level.
        run (`Callable`): The layer at some heads and columns, for the tokens at some places or for all.
        sizes (`tuple[int, int]`): The heads and columns of the level.
        hidden_states, real: As for [`TokenRouting.route`].
    """
    if routing is None or sizes == layer.base_sizes:
        return run(sizes)
    small = partial(run, layer.base_sizes) if layer.base_sizes[0] else None
    return routing.route(layer.preview, hidden_states, real, partial(run, sizes), small, layer.training)


def take_tokens(states: torch.Tensor, places: torch.Tensor | None) -> torch.Tensor:
    """The tokens at `places (batch, count)` of `states (batch, length, width)`; all without places."""
    if places is None:
        return states
    return states.gather(1, places.unsqueeze(-1).expand(-1, -1, states.shape[-1]))


def take_queries(
    query: torch.Tensor, mask: torch.Tensor | None, places: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The queries at `places` of `query (batch, heads, length, width)`, and their rows of the mask."""
    if places is None:
        return query, mask
    rows = places[:, None, :, None]
    query = query.gather(2, rows.expand(-1, query.shape[1], -1, query.shape[-1]))
    if mask is not None and mask.shape[2] > 1:
        mask = mask.expand(places.shape[0], -1, -1, -1)
        mask = mask.gather(2, rows.expand(-1, mask.shape[1], -1, mask.shape[-1]))
    return query, mask
