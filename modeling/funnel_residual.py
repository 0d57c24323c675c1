"""A funnel that starts as principal components."""

import torch
from torch import nn

from .configuration_matryoshka_funnel import MatryoshkaFunnelConfig
from .funnel_layers import FunnelMLP, StageDensities


class ResidualFunnel(nn.Module):
    """Principal components, with a network added to the code and one to what is decoded; both start at zero.

    The decoder sees which level it decodes. Gates scale what the networks add: with all of them at 0 the funnel is
    PCA, so gates chosen on held-out embeddings never leave a level below it there.
    """

    def __init__(self, config: MatryoshkaFunnelConfig):
        super().__init__()
        self.dims = config.matryoshka_dims
        width, latent = config.embedding_dim, config.latent_dim
        self.input_scale = width**0.5
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("basis", torch.eye(latent, width))
        self.register_buffer("scale", torch.ones(latent))
        self.register_buffer("encoder_gate", torch.ones(()))
        self.register_buffer("decoder_gates", torch.ones(len(self.dims)))
        self.encoder = FunnelMLP(width, config.encoder_sizes, latent, zero_start=True)
        self.decoder = FunnelMLP(latent, config.decoder_sizes, width, zero_start=True)
        # What tells the decoder the level.
        first = config.decoder_sizes[0] if config.decoder_sizes else width
        self.level_shifts = nn.Parameter(torch.zeros(len(self.dims), first))
        self.densities = StageDensities(self.dims, config.predictor_sizes)

    def encode(self, embeddings: torch.Tensor, stage: int) -> torch.Tensor:
        dim = self.dims[stage]
        centred = embeddings - self.mean
        code = centred @ self.basis[:dim].T / self.scale[:dim]
        return code + self.encoder_gate * self.encoder(centred * self.input_scale, dim)

    def decode(self, latents: torch.Tensor, stage: int) -> torch.Tensor:
        return self._decode(latents, self.level_shifts[stage], self.decoder_gates[stage])

    def decode_levels(self, latents: torch.Tensor) -> torch.Tensor:
        kept = torch.arange(self.dims[-1], device=latents.device) < torch.tensor(
            self.dims, device=latents.device
        ).unsqueeze(-1)
        return self._decode(
            latents * kept[:, None].to(latents.dtype), self.level_shifts[:, None], self.decoder_gates[:, None, None]
        )

    def _decode(self, latents: torch.Tensor, shift: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        dim = latents.shape[-1]
        linear = self.mean + latents * self.scale[:dim] @ self.basis[:dim]
        return linear + gate * self.decoder(latents, shift=shift) / self.input_scale

    def macs(self, stage: int) -> int:
        """Multiplications of encoding and decoding one embedding at a level."""
        dim, width = self.dims[stage], self.mean.shape[0]
        unused = self.dims[-1] - dim
        networks = self.encoder.macs() - unused * self.encoder.output.in_features
        first = self.decoder.layers[0] if self.decoder.layers else self.decoder.output
        return 2 * dim * width + networks + self.decoder.macs() - unused * first.out_features
