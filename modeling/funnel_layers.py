"""What all kinds of funnel are made of: their networks, and the density of each stage given those before."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from .nested_layers import NestedLinear, ZeroStartLinear


# Logarithms of standard deviations stay within this: no density becomes a spike.
LOG_STD_BOUND = 5.0
LOG_2_PI = math.log(2 * math.pi)


class FunnelMLP(nn.Module):
    """Linear layers with layer norm and GELU between them.

    Args:
        in_features, out_features (`int`): Widths of input and output.
        sizes (`list[int]`): Hidden widths.
        zero_start (`bool`, *optional*, defaults to `False`): Whether the output is 0 before training.
    """

    def __init__(self, in_features: int, sizes: list[int], out_features: int, zero_start: bool = False):
        super().__init__()
        widths = [in_features, *sizes]
        self.layers = nn.ModuleList(NestedLinear(a, b) for a, b in zip(widths, sizes, strict=False))
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in sizes)
        self.output = (ZeroStartLinear if zero_start else NestedLinear)(widths[-1], out_features)

    def forward(self, input: torch.Tensor, rows: int | None = None, shift: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            input (`torch.Tensor` of shape `(..., columns)`): The leading features of the input, or all.
            rows (`int`, *optional*): Number of leading output features to compute; all by default.
            shift (`torch.Tensor`, *optional*): Added to what the first layer gives.
        """
        hidden = input
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            hidden = layer(hidden)
            if number == 0 and shift is not None:
                hidden = hidden + shift
            hidden = F.gelu(norm(hidden))
        return self.output(hidden, rows)

    def macs(self) -> int:
        """Multiplications of one row through all of it."""
        return sum(layer.weight.numel() for layer in (*self.layers, self.output))


class StageDensities(nn.Module):
    r"""Normal densities \\( p(z_i | z_{<i}) \\) of the stages of a latent, the mean and spread of each from a network
    of what is before it; those of the first stage are numbers.

    Together they are the density of every prefix; their means are what a prefix is completed by; and in the
    coordinates \\( e_i = (z_i - m_i) / s_i \\) of [`whiten`], zeros are that completion.

    Args:
        dims (`list[int]`): Width of the latent after each stage.
        sizes (`list[int]`): Hidden widths of the networks.
    """

    def __init__(self, dims: list[int], sizes: list[int]):
        super().__init__()
        self.dims = dims
        self.networks = nn.ModuleList(
            FunnelMLP(start, sizes, 2 * (end - start), zero_start=True)
            for start, end in zip(dims, dims[1:], strict=False)
        )
        self.register_buffer("first_mean", torch.zeros(dims[0]))
        self.register_buffer("first_log_std", torch.zeros(dims[0]))

    def stage(self, number: int, before: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and logarithm of the standard deviation of a stage, `(..., width)`, given those before it."""
        if number == 0:
            shape = (*before.shape[:-1], self.dims[0])
            return self.first_mean.expand(shape), self.first_log_std.expand(shape)
        mean, raw = self.networks[number - 1](before).chunk(2, dim=-1)
        return mean, LOG_STD_BOUND * torch.tanh(raw / LOG_STD_BOUND)

    def _stages(self, width: int) -> list[tuple[int, int, int]]:
        """Number, start and end of the stages of a latent of this width."""
        ends = self.dims[: self.dims.index(width) + 1]
        return list(zip(range(len(ends)), [0, *ends], ends, strict=False))

    def conditionals(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and logarithm of the standard deviation of each number of a prefix of the latent given the stages
        before its own.

        Args:
            latents (`torch.Tensor` of shape `(..., width)`): Up to the end of a stage.

        Returns:
            `torch.Tensor` of shape `(..., width)`, twice.
        """
        parts = [self.stage(number, latents[..., :start]) for number, start, _ in self._stages(latents.shape[-1])]
        means, log_stds = zip(*parts, strict=True)
        return torch.cat(means, dim=-1), torch.cat(log_stds, dim=-1)

    def log_prob(self, latents: torch.Tensor) -> torch.Tensor:
        """Logarithm of the density of a prefix of the latent, `(..., width)`, in nats, of shape `(...)`."""
        return normal_log_prob(latents, *self.conditionals(latents))

    def whiten(self, latents: torch.Tensor) -> torch.Tensor:
        """A prefix of the latent, `(..., width)`, in coordinates that are independent standard normals."""
        mean, log_std = self.conditionals(latents)
        return (latents - mean) * torch.exp(-log_std)

    def unwhiten(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Undoes [`whiten`]."""
        latents = coordinates[..., :0]
        for number, start, end in self._stages(coordinates.shape[-1]):
            mean, log_std = self.stage(number, latents)
            latents = torch.cat([latents, mean + coordinates[..., start:end] * torch.exp(log_std)], dim=-1)
        return latents

    def complete(self, latents: torch.Tensor) -> torch.Tensor:
        """A prefix of the latent, `(..., width)`, followed by the mean of each further stage given all before it."""
        for number in range(self.dims.index(latents.shape[-1]) + 1, len(self.dims)):
            latents = torch.cat([latents, self.stage(number, latents)[0]], dim=-1)
        return latents

    def complete_levels(self, latents: torch.Tensor, levels: int) -> torch.Tensor:
        """What [`complete`] makes of each of the first `levels` prefixes, with one call of each network.

        Args:
            latents (`torch.Tensor` of shape `(batch, width)`): At least up to the end of the last of these levels.

        Returns:
            `torch.Tensor` of shape `(levels, batch, dims[-1])`.
        """
        rows = latents[:, : self.dims[0]].expand(levels, -1, -1)
        for number, (start, end) in enumerate(zip(self.dims, self.dims[1:], strict=False), start=1):
            # The levels below this stage have no block of their own.
            below = min(number, levels)
            block = self.stage(number, rows[:below])[0]
            if below < levels:
                block = torch.cat([block, latents[:, start:end].expand(levels - below, -1, -1)])
            rows = torch.cat([rows, block], dim=-1)
        return rows

    def macs(self, first: int) -> int:
        """Multiplications that complete one latent from the stage `first` on."""
        return sum(network.macs() for network in self.networks[first:])


def normal_log_prob(values: torch.Tensor, mean: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
    """Logarithm of the density of independent normals, a sum over the last dimension."""
    return -0.5 * (((values - mean) * torch.exp(-log_std)) ** 2 + 2 * log_std + LOG_2_PI).sum(dim=-1)
