"""A funnel that is a normalising flow: one bijection, whose leading coordinates are the latent."""

import torch
from torch import nn

from .configuration_matryoshka_funnel import MatryoshkaFunnelConfig
from .funnel_layers import LOG_STD_BOUND, FunnelMLP, StageDensities, normal_log_prob


# Each coupling changes the spread of a coordinate by at most this, in logarithms.
COUPLING_BOUND = 2.0


class Chart(nn.Module):
    """Embeddings as points of a flat space, centred, rotated and scaled.

    On the sphere the point is the logarithmic map at the mean direction: a unit vector at the angle t from it becomes
    a tangent vector of length t. So the density of unit vectors is one over the sphere's surface; as a density over
    the space around it, it would have no bound. Where embeddings fill fewer dimensions than they have, that sphere is
    the part of it that they fill, on which they are projected: across it a density would have no bound, either.
    """

    def __init__(self, config: MatryoshkaFunnelConfig):
        super().__init__()
        self.spherical = config.geometry == "sphere"
        width, dim = config.embedding_dim, config.flat_dim
        self.register_buffer("origin", torch.eye(1, width)[0] * self.spherical)
        # Rows are orthonormal, on the sphere also to the origin.
        self.register_buffer("basis", torch.eye(width)[self.spherical : self.spherical + dim])
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def forward(self, embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The points, `(..., dim)`, and the logarithm of how much the map enlarges a volume there, `(...)`."""
        log_det = -self.scale.log().sum()
        if self.spherical:
            across = embeddings @ self.basis.T
            length = across.norm(dim=-1).clamp_min(1e-12)
            angle = torch.atan2(length, embeddings @ self.origin)
            tangents = across * (angle / length)[..., None]
            # The exponential map shrinks volumes by (sin t / t) ** (dim - 1).
            angle = angle.clamp_min(1e-6)
            log_det = log_det - (len(self.scale) - 1) * torch.log(torch.sin(angle).clamp_min(1e-6) / angle)
        else:
            tangents = (embeddings - self.origin) @ self.basis.T
        points = (tangents - self.centre) / self.scale
        return points, log_det.expand(points.shape[:-1])

    def inverse(self, points: torch.Tensor) -> torch.Tensor:
        """The embeddings, `(..., embedding_dim)`, of points."""
        tangents = points * self.scale + self.centre
        if not self.spherical:
            return tangents @ self.basis + self.origin
        angle = tangents.norm(dim=-1, keepdim=True)
        return torch.cos(angle) * self.origin + torch.sinc(angle / torch.pi) * tangents @ self.basis


class AffineCoupling(nn.Module):
    """Every other coordinate is scaled and shifted by what a network makes of the rest (Dinh et al., arXiv
    1605.08803).

    Args:
        dim (`int`): Coordinates, at least 2.
        sizes (`list[int]`): Hidden widths of the network, which gives 0 before training.
        changed (`int`): 0 or 1: whether those at even or at odd places are changed.
    """

    def __init__(self, dim: int, sizes: list[int], changed: int):
        super().__init__()
        self.changed = changed
        count = len(range(changed, dim, 2))
        self.network = FunnelMLP(dim - count, sizes, 2 * count, zero_start=True)

    def _affine(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shift, raw = self.network(points[..., 1 - self.changed :: 2]).chunk(2, dim=-1)
        return shift, COUPLING_BOUND * torch.tanh(raw / COUPLING_BOUND)

    def _replace(self, points: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        points = points.clone()
        points[..., self.changed :: 2] = values
        return points

    def forward(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The new points, `(..., dim)`, and the logarithm of the determinant of the derivative, `(...)`."""
        shift, log_scale = self._affine(points)
        values = points[..., self.changed :: 2] * torch.exp(log_scale) + shift
        return self._replace(points, values), log_scale.sum(dim=-1)

    def inverse(self, points: torch.Tensor) -> torch.Tensor:
        shift, log_scale = self._affine(points)
        return self._replace(points, (points[..., self.changed :: 2] - shift) * torch.exp(-log_scale))


class FlowFunnel(nn.Module):
    r"""A nested factor-out flow: \\( \log p(x) = \log |\det J_T| + \sum_i \log p(u_i | u_{<i}) + \log p(r | u) \\)
    with one bijection \\( T(x) = (u_1, ..., u_L, r) \\) (Klein et al., "Funnels", arXiv 2112.08069; the predictors of
    a cascade are the \\( p(u_i | u_{<i}) \\), its decoder is \\( p(r | u) \\)).

    Terms of later stages can be dropped, which leaves the exact density of a prefix. A prefix is decoded through the
    means of what is missing.
    """

    def __init__(self, config: MatryoshkaFunnelConfig):
        super().__init__()
        self.dims = config.stage_dims
        self.levels = len(config.matryoshka_dims)
        self.chart = Chart(config)
        dim = len(self.chart.scale)
        self.couplings = nn.ModuleList(
            AffineCoupling(dim, config.coupling_sizes, number % 2) for number in range(config.num_couplings)
        )
        self.densities = StageDensities(self.dims, config.predictor_sizes)
        rest = dim - self.dims[-1]
        self.decoder = FunnelMLP(self.dims[-1], config.decoder_sizes, 2 * rest, zero_start=True) if rest else None

    def transform(self, embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """T: the coordinates `(u, r)`, `(..., dim)`, and the logarithm of the determinant, `(...)`."""
        points, log_det = self.chart(embeddings)
        for coupling in self.couplings:
            points, own = coupling(points)
            log_det = log_det + own
        return points, log_det

    def inverse(self, points: torch.Tensor) -> torch.Tensor:
        """Undoes [`transform`]."""
        for coupling in reversed(self.couplings):
            points = coupling.inverse(points)
        return self.chart.inverse(points)

    def rest(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and logarithm of the standard deviation of what no stage holds, given a whole latent."""
        if self.decoder is None:
            return latents[..., :0], latents[..., :0]
        mean, raw = self.decoder(latents).chunk(2, dim=-1)
        return mean, LOG_STD_BOUND * torch.tanh(raw / LOG_STD_BOUND)

    def log_likelihood(self, embeddings: torch.Tensor) -> torch.Tensor:
        points, log_det = self.transform(embeddings)
        latents, rest = points[..., : self.dims[-1]], points[..., self.dims[-1] :]
        return log_det + self.densities.log_prob(latents) + normal_log_prob(rest, *self.rest(latents))

    def encode(self, embeddings: torch.Tensor, stage: int) -> torch.Tensor:
        return self.transform(embeddings)[0][..., : self.dims[stage]]

    def decode(self, latents: torch.Tensor, stage: int) -> torch.Tensor:
        return self._decode(self.densities.complete(latents))

    def decode_levels(self, latents: torch.Tensor) -> torch.Tensor:
        return self._decode(self.densities.complete_levels(latents, self.levels))

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.inverse(torch.cat([latents, self.rest(latents)[0]], dim=-1))

    def macs(self, stage: int) -> int:
        """Multiplications of encoding and decoding one embedding at a level."""
        couplings = 2 * sum(coupling.network.macs() for coupling in self.couplings)
        rest = 0 if self.decoder is None else self.decoder.macs()
        return couplings + 2 * self.chart.basis.numel() + self.densities.macs(stage) + rest
