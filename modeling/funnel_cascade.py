"""A funnel whose every stage is encoded with those before it in view, and predicted from them."""

import torch
from torch import nn

from .configuration_matryoshka_funnel import MatryoshkaFunnelConfig
from .funnel_layers import FunnelMLP, StageDensities


class CascadeFunnel(nn.Module):
    """The structure of the first cascading funnel: an encoder a stage, which sees the embedding and the stages before;
    predictors, which complete a latent; one decoder of whole latents."""

    def __init__(self, config: MatryoshkaFunnelConfig):
        super().__init__()
        self.dims = config.stage_dims
        width = config.embedding_dim
        starts = [0, *config.matryoshka_dims]
        self.encoders = nn.ModuleList(
            FunnelMLP(width + start, config.encoder_sizes, end - start)
            for start, end in zip(starts, config.matryoshka_dims, strict=False)
        )
        self.densities = StageDensities(self.dims, config.predictor_sizes)
        self.decoder = FunnelMLP(self.dims[-1], config.decoder_sizes, width)

    def encode(self, embeddings: torch.Tensor, stage: int) -> torch.Tensor:
        latents = embeddings[..., :0]
        for encoder in self.encoders[: stage + 1]:
            latents = torch.cat([latents, encoder(torch.cat([embeddings, latents], dim=-1))], dim=-1)
        return latents

    def decode(self, latents: torch.Tensor, stage: int) -> torch.Tensor:
        return self.decoder(self.densities.complete(latents))

    def decode_levels(self, latents: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.densities.complete_levels(latents, len(self.encoders)))

    def macs(self, stage: int) -> int:
        """Multiplications of encoding and decoding one embedding at a level."""
        encoders = sum(encoder.macs() for encoder in self.encoders[: stage + 1])
        return encoders + self.densities.macs(stage) + self.decoder.macs()
