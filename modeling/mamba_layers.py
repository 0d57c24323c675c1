"""The blocks of the Matryoshka Mamba encoder: a nested Mamba-2 mixer and a nested SwiGLU network."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_matryoshka_mamba import MatryoshkaMambaConfig
from .mamba_kernels import scan
from .nested_layers import NestedBlockLinear, NestedLinear, NestedRMSNorm


@dataclass
class BlockState:
    """What a block remembers of the tokens so far.

    Args:
        conv (`torch.Tensor` of shape `(batch, conv_kernel - 1, channels)`): What the last tokens gave its convolution.
        ssm (`torch.Tensor` of shape `(batch, heads, head_dim, state)`): The state of its scan.
    """

    conv: torch.Tensor
    ssm: torch.Tensor


@dataclass
class TokenLayout:
    """Which tokens of a batch are text, and which of them see each other.

    Args:
        mask (`torch.Tensor` of shape `(batch, length)`, *optional*): 1 for text, 0 for padding; without, all is text.
        segments (`torch.Tensor` of shape `(batch, length)`, *optional*): Numbers of the texts of packed rows.
        blocks (`torch.Tensor` of shape `(batch, length)`, *optional*): Numbers of the parts that the scan from the end
            stays within; by default the texts.
    """

    mask: torch.Tensor | None = None
    segments: torch.Tensor | None = None
    blocks: torch.Tensor | None = None


class CausalConv(nn.Module):
    """A depthwise convolution over a token and those before it; of few channels, the leading ones.

    A sum of shifted products is three times as fast on a CPU as a convolution with one group a channel.
    """

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.empty(channels, kernel))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(
        self, input: torch.Tensor, before: torch.Tensor | None = None, segments: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Args:
            input (`torch.Tensor` of shape `(batch, length, channels)`): Leading channels of each token.
            before (`torch.Tensor` of shape `(batch, kernel - 1, channels)`, *optional*): Those of the tokens before
                the first; 0 by default.
            segments (`torch.Tensor` of shape `(batch, length)`, *optional*): Tokens of another number are not seen.
        """
        channels, length, reach = input.shape[-1], input.shape[1], self.kernel - 1
        weight, bias = self.weight[:channels].to(input.dtype), self.bias[:channels].to(input.dtype)
        if before is None:
            padded = F.pad(input, (0, 0, reach, 0))
        else:
            padded = torch.cat((before.to(input.dtype), input), dim=1)
        output = torch.addcmul(bias, input, weight[:, reach])
        for shift in range(1, self.kernel):
            shifted = padded[:, reach - shift : reach - shift + length]
            if segments is not None:
                same = torch.cat((segments[:, :1].expand(-1, shift), segments), dim=1)[:, :length] == segments
                shifted = shifted * same[..., None]
            output = torch.addcmul(output, shifted, weight[:, reach - shift])
        return output


class MambaMixer(nn.Module):
    """A Mamba-2 mixer (arXiv 2405.21060) whose smaller versions have the leading heads.

    `B`, `C` and the residual stream are whole at every level, as in MatMamba (arXiv 2410.06718, section 3). The norm
    after the scan takes its statistics over the heads that there are.
    """

    def __init__(self, config: MatryoshkaMambaConfig):
        super().__init__()
        self.head_dim, self.chunk_size = config.head_dim, config.chunk_size
        self.backward_scan = config.direction != "causal"
        channels = config.num_heads * config.head_dim
        self.z_proj = NestedLinear(config.hidden_size, channels, bias=False)
        self.x_proj = NestedLinear(config.hidden_size, channels, bias=False)
        self.bc_proj = nn.Linear(config.hidden_size, 2 * config.state_size, bias=False)
        self.dt_proj = NestedLinear(config.hidden_size, config.num_heads, bias=False)
        self.x_conv = CausalConv(channels, config.conv_kernel)
        self.bc_conv = CausalConv(2 * config.state_size, config.conv_kernel)
        self.dt_bias = nn.Parameter(torch.empty(config.num_heads))
        self.A_log = nn.Parameter(torch.empty(config.num_heads))
        self.D = nn.Parameter(torch.empty(config.num_heads))
        self.norm = NestedRMSNorm(channels, eps=config.layer_norm_epsilon)
        self.out_proj = NestedLinear(channels, config.hidden_size, bias=False)

    def forward(
        self, hidden_states: torch.Tensor, heads: int, layout: TokenLayout, state: BlockState | None = None
    ) -> tuple[torch.Tensor, BlockState | None]:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(batch, length, hidden_size)`): The normed residual stream.
            heads (`int`): Leading heads to compute.
            layout ([`TokenLayout`]): The texts of the batch.
            state ([`BlockState`], *optional*): What the tokens before left; a new state is returned then.

        Returns:
            `tuple`: What is added to the residual stream, and the state after the last token, or `None`.
        """
        channels = heads * self.head_dim
        if layout.mask is not None:
            # No projection has a bias, so that padding looks to the convolution like what is before a text.
            hidden_states = hidden_states * layout.mask[..., None].to(hidden_states.dtype)
        z, x = self.z_proj(hidden_states, channels), self.x_proj(hidden_states, channels)
        bc = self.bc_proj(hidden_states)
        dt = F.softplus(self.dt_proj(hidden_states, heads).float() + self.dt_bias[:heads].float())
        if layout.mask is not None:
            dt = dt * layout.mask[..., None].to(dt.dtype)
        new_conv, x_before, bc_before = None, None, None
        if state is not None:
            x_before, bc_before = state.conv.split((channels, bc.shape[-1]), dim=-1)
            new_conv = _last_tokens(x, bc, state.conv, layout.mask)
        x = F.silu(self.x_conv(x, x_before, layout.segments)).unflatten(-1, (heads, self.head_dim))
        inputs, outputs = F.silu(self.bc_conv(bc, bc_before, layout.segments)).chunk(2, dim=-1)
        decay = -torch.exp(self.A_log[:heads].float())
        ssm = None if state is None else state.ssm
        y, ssm = scan(x, dt, decay, inputs, outputs, self.chunk_size, layout.segments, ssm)
        if self.backward_scan:
            parts = [part.flip(1) for part in (x, dt)], [part.flip(1) for part in (inputs, outputs)]
            blocks = layout.segments if layout.blocks is None else layout.blocks
            blocks = None if blocks is None else blocks.flip(1)
            y = y + scan(*parts[0], decay, *parts[1], self.chunk_size, blocks)[0].flip(1)
        y = torch.addcmul(y, x.float(), self.D[:heads, None].float())
        y = self.norm((y.flatten(-2) * F.silu(z.float())).to(hidden_states.dtype))
        return self.out_proj(y), None if state is None else BlockState(new_conv, ssm)


def _last_tokens(x: torch.Tensor, bc: torch.Tensor, before: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """What the convolution has of the last tokens of each row that are text, as many as `before` has."""
    reach = before.shape[1]
    if mask is None:
        new = torch.cat((x[:, -reach:], bc[:, -reach:]), dim=-1) if reach else before
        return torch.cat((before[:, new.shape[1] :].to(new.dtype), new), dim=1)
    new = torch.cat((x, bc), dim=-1)
    joined = torch.cat((before.to(new.dtype), new), dim=1)
    # Padding is before or after the text, never within: the text ends after its last token.
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    ends = (mask.bool() * places).amax(dim=1)
    index = ends[:, None] + torch.arange(reach, device=mask.device)
    return joined.gather(1, index[..., None].expand(-1, -1, joined.shape[-1]))


class SwiGLU(nn.Module):
    """`down(silu(gate) * up)` (arXiv 2002.05202), whose smaller versions have the leading columns."""

    def __init__(self, config: MatryoshkaMambaConfig):
        super().__init__()
        self.gate_up_proj = NestedBlockLinear(config.hidden_size, 2 * config.intermediate_size, blocks=2, bias=False)
        self.down_proj = NestedLinear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden_states: torch.Tensor, columns: int) -> torch.Tensor:
        gate, up = self.gate_up_proj(hidden_states, columns).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate) * up)


class MambaBlock(GradientCheckpointingLayer):
    """A mixer and, unless `intermediate_size` is 0, a network, each added to the residual stream."""

    def __init__(self, config: MatryoshkaMambaConfig):
        super().__init__()
        self.norm = NestedRMSNorm(config.hidden_size, eps=config.layer_norm_epsilon)
        self.mixer = MambaMixer(config)
        has_mlp = config.intermediate_size > 0
        self.mlp_norm = NestedRMSNorm(config.hidden_size, eps=config.layer_norm_epsilon) if has_mlp else None
        self.mlp = SwiGLU(config) if has_mlp else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        hidden_states: torch.Tensor,
        sizes: tuple[int, int],
        layout: TokenLayout,
        state: BlockState | None = None,
    ) -> tuple[torch.Tensor, BlockState | None]:
        heads, columns = sizes
        mixed, state = self.mixer(self.norm(hidden_states), heads, layout, state)
        hidden_states = hidden_states + self.dropout(mixed)
        if self.mlp is not None:
            hidden_states = hidden_states + self.dropout(self.mlp(self.mlp_norm(hidden_states), columns))
        return hidden_states, state


def step_biases(heads: int, config: MatryoshkaMambaConfig) -> torch.Tensor:
    """Random biases whose softplus are step sizes between `time_step_min` and `time_step_max`, log-uniform."""
    low, high = math.log(config.time_step_min), math.log(config.time_step_max)
    steps = torch.exp(torch.rand(heads) * (high - low) + low).clamp_min(config.time_step_floor)
    return steps + torch.log(-torch.expm1(-steps))


__all__ = ["BlockState", "MambaBlock", "TokenLayout"]
