"""The Matryoshka funnel: embeddings in, a short latent in stages out, and back from the first stages alone."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_matryoshka_funnel import MatryoshkaFunnelConfig
from .funnel_cascade import CascadeFunnel
from .funnel_flow import FlowFunnel
from .funnel_layers import normal_log_prob
from .funnel_residual import ResidualFunnel
from .model_inputs import as_embeddings
from .nested_layers import ZeroStartLinear
from .nested_model import NestedModelMixin


FUNNELS = {"residual": ResidualFunnel, "cascade": CascadeFunnel, "flow": FlowFunnel}
# A CPU decodes all levels of so many rows at once, of more level by level.
ROWS_IN_ONE_CALL = 128


@dataclass
class MatryoshkaFunnelOutput(ModelOutput):
    """
    Args:
        latents (`torch.FloatTensor` of shape `(batch, dim)`):
            The latent of the level.
        reconstructions (`torch.FloatTensor` of shape `(batch, embedding_dim)` or `(levels, batch, embedding_dim)`):
            What the level, or every level, decodes it to.
        log_prob (`torch.FloatTensor` of shape `(batch,)`, *optional*):
            In nats. Of a flow: of the embeddings. Of the other kinds: of the latents, which get no gradient from it.
        predictions (`torch.FloatTensor` of shape `(batch, dim)`, *optional*):
            The mean of each stage of the latent given the stages before it.
    """

    latents: torch.FloatTensor | None = None
    reconstructions: torch.FloatTensor | None = None
    log_prob: torch.FloatTensor | None = None
    predictions: torch.FloatTensor | None = None


class MatryoshkaFunnelModel(NestedModelMixin, PreTrainedModel):
    """Encodes embeddings into a latent whose every prefix up to the end of a stage can be decoded.

    A new model encodes the leading coordinates; `hf_matryoshka.init_funnel` starts it from principal components.
    """

    config: MatryoshkaFunnelConfig
    base_model_prefix = "funnel"
    main_input_name = "embeddings"

    def __init__(self, config: MatryoshkaFunnelConfig):
        super().__init__(config)
        self.funnel = FUNNELS[config.kind](config)
        # The funnel's own coordinates are of one spread, which suits its networks. Latents have the spread of the
        # principal components instead: their cosine is then near that of the embeddings.
        self.register_buffer("latent_scale", torch.ones(config.stage_dims[-1]))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, ZeroStartLinear):
            init.zeros_(module.weight)
        elif isinstance(module, ResidualFunnel):
            init.zeros_(module.level_shifts)

    def forward(
        self,
        embeddings: torch.Tensor,
        level: int | str | None = None,
        all_levels: bool = False,
        return_densities: bool = False,
    ) -> MatryoshkaFunnelOutput:
        """
        Args:
            embeddings (`torch.FloatTensor` of shape `(batch, embedding_dim)`):
                Embeddings of the base model.
            level (`int` or `str`, *optional*):
                The level, an index or a name such as `"d64"`; the largest by default.
            all_levels (`bool`, *optional*, defaults to `False`):
                Whether to decode every level; the latents are those of the largest.
            return_densities (`bool`, *optional*, defaults to `False`):
                Whether to give `log_prob` and `predictions`, too.

        Returns:
            [`MatryoshkaFunnelOutput`].

        Raises:
            ValueError: If the level does not exist, or the embeddings have another width or hold NaN or infinity.
        """
        if all_levels and level is not None:
            raise ValueError(f"give level ({level!r}) or all_levels, not both")
        stage = self.config.level_index(level)
        codes = self.funnel.encode(self._checked(embeddings), stage)
        found = self._all_levels(codes) if all_levels else self.funnel.decode(codes, stage)
        scale = self.latent_scale[: codes.shape[-1]]
        log_prob = predictions = None
        if return_densities:
            # A cascade learns to be predictable: what a stage is predicted from gets a gradient, the stage none.
            known = codes if self.config.kind == "cascade" else codes.detach()
            means, log_std = self.funnel.densities.conditionals(known)
            predictions = means * scale
            if self.config.kind == "flow":
                log_prob = self.log_likelihood(embeddings)
            else:
                log_prob = normal_log_prob(codes.detach(), means, log_std) - scale.log().sum()
        return MatryoshkaFunnelOutput(codes * scale, self._decoded(found), log_prob, predictions)

    def encode(self, embeddings: torch.Tensor, level: int | str | None = None) -> torch.Tensor:
        """The latent of a level, a prefix of that of every larger one.

        Args:
            embeddings (`torch.FloatTensor` of shape `(batch, embedding_dim)`): Embeddings.
            level (`int` or `str`, *optional*): The level; the largest by default.

        Returns:
            `torch.FloatTensor` of shape `(batch, dim)`.

        Raises:
            ValueError: If the level does not exist, or the embeddings have another width or hold NaN or infinity.
        """
        codes = self.funnel.encode(self._checked(embeddings), self.config.level_index(level))
        return codes * self.latent_scale[: codes.shape[-1]]

    def decode(self, latents: torch.Tensor, active_dim: int | None = None) -> torch.Tensor:
        """The embeddings that the first `active_dim` numbers of latents stand for.

        Args:
            latents (`torch.FloatTensor` of shape `(batch, width)`): What follows the first `active_dim` is not read.
            active_dim (`int`, *optional*): End of a stage; by default `width`.

        Returns:
            `torch.FloatTensor` of shape `(batch, embedding_dim)`, on the sphere of length `embedding_norm`.

        Raises:
            ValueError: If no stage ends at `active_dim`, or the latents are narrower.
        """
        stage, codes = self._codes(latents, active_dim)
        return self._decoded(self.funnel.decode(codes, stage))

    def decode_levels(self, latents: torch.Tensor) -> torch.Tensor:
        """What [`decode`] makes of the latents at every level, with one call of the decoder where that is faster.

        Args:
            latents (`torch.FloatTensor` of shape `(batch, latent_dim)`): Latents of the largest level.

        Returns:
            `torch.FloatTensor` of shape `(levels, batch, embedding_dim)`.

        Raises:
            ValueError: If the latents are narrower.
        """
        return self._decoded(self._all_levels(self._codes(latents, self.config.latent_dim)[1]))

    def _all_levels(self, codes: torch.Tensor) -> torch.Tensor:
        # One call reads the weights once; with many rows that saves nothing, and what it keeps leaves a CPU's caches.
        if codes.device.type != "cpu" or len(codes) <= ROWS_IN_ONE_CALL:
            return self.funnel.decode_levels(codes)
        parts = [self.funnel.decode(codes[:, :dim], stage) for stage, dim in enumerate(self.config.matryoshka_dims)]
        return torch.stack(parts)

    def complete(self, latents: torch.Tensor, active_dim: int | None = None) -> torch.Tensor:
        """The first `active_dim` numbers of latents and, after them, the mean of every further stage given those
        before.

        Args:
            latents (`torch.FloatTensor` of shape `(batch, width)`), active_dim (`int`, *optional*): As in [`decode`].

        Returns:
            `torch.FloatTensor` of shape `(batch, stage_dims[-1])`.

        Raises:
            ValueError: As in [`decode`].
        """
        return self.funnel.densities.complete(self._codes(latents, active_dim)[1]) * self.latent_scale

    def log_prob(self, latents: torch.Tensor, active_dim: int | None = None) -> torch.Tensor:
        """Logarithm of the density of the first `active_dim` numbers of latents, in nats.

        Exact for a flow; for the other kinds that of normal densities fitted in training, stage by stage.

        Args:
            latents (`torch.FloatTensor` of shape `(batch, width)`), active_dim (`int`, *optional*): As in [`decode`].

        Returns:
            `torch.FloatTensor` of shape `(batch,)`.

        Raises:
            ValueError: As in [`decode`].
        """
        codes = self._codes(latents, active_dim)[1]
        return self.funnel.densities.log_prob(codes) - self.latent_scale[: codes.shape[-1]].log().sum()

    def whiten(self, latents: torch.Tensor, active_dim: int | None = None) -> torch.Tensor:
        """Latents in coordinates that are standard normal under [`log_prob`]: in these, zeros after a prefix are what
        [`complete`] completes it by. Arguments, shape and errors as in [`decode`]; returns `(batch, active_dim)`."""
        return self.funnel.densities.whiten(self._codes(latents, active_dim)[1])

    def unwhiten(self, coordinates: torch.Tensor, active_dim: int | None = None) -> torch.Tensor:
        """The latents, `(batch, active_dim)`, of coordinates of [`whiten`]; arguments and errors as there."""
        codes = self.funnel.densities.unwhiten(self._prefix(coordinates, active_dim)[1])
        return codes * self.latent_scale[: codes.shape[-1]]

    @torch.no_grad()
    def sample(
        self, count: int, level: int | str | None = None, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Latents drawn from the density of [`log_prob`].

        Args:
            count (`int`): How many.
            level (`int` or `str`, *optional*): The level; the largest by default.
            generator (`torch.Generator`, *optional*): Source of randomness.

        Returns:
            `torch.FloatTensor` of shape `(count, dim)`; [`decode`] turns them into embeddings.

        Raises:
            ValueError: If the level does not exist or `count` is below 1.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1, but is {count}")
        shape = (count, self.config.level_dim(level))
        return self.unwhiten(torch.randn(shape, generator=generator, device=self.device, dtype=self.dtype))

    def log_likelihood(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Logarithm of the density of embeddings under a flow, in nats; on the sphere over its surface.

        Args:
            embeddings (`torch.FloatTensor` of shape `(batch, embedding_dim)`): Embeddings.

        Returns:
            `torch.FloatTensor` of shape `(batch,)`.

        Raises:
            ValueError: If the funnel is no flow, or as in [`encode`].
        """
        if self.config.kind != "flow":
            raise ValueError(f"a funnel of kind {self.config.kind!r} has no density of embeddings; a 'flow' has one")
        return self.funnel.log_likelihood(self._checked(embeddings))

    def cost(self, level: int | str | None = None) -> dict[str, int]:
        """What one level costs: `parameters` that it reads, `macs` of encoding and decoding one embedding, and
        `bytes_per_vector` of its float32 latent.

        Raises:
            ValueError: If the level does not exist.
        """
        stage = self.config.level_index(level)
        parameters = sum(shape.numel() for shape in self.level_shapes(stage).values())
        return {
            "parameters": parameters,
            "macs": self.funnel.macs(stage),
            "bytes_per_vector": 4 * self.config.level_dim(stage),
        }

    def _checked(self, embeddings: torch.Tensor) -> torch.Tensor:
        """The embeddings as the funnel takes them."""
        width = self.config.embedding_dim
        if embeddings.ndim != 2 or embeddings.shape[-1] != width:
            raise ValueError(
                f"the embeddings have shape {tuple(embeddings.shape)}, but this funnel takes (batch, {width})"
            )
        embeddings = as_embeddings(embeddings, self.dtype)
        if not torch.compiler.is_compiling() and not torch.isfinite(embeddings).all():
            rows = (~torch.isfinite(embeddings).all(dim=-1)).nonzero()[:, 0].tolist()
            raise ValueError(f"embedding {rows[0]} holds NaN or infinity ({len(rows)} of {len(embeddings)} do)")
        return F.normalize(embeddings, dim=-1) if self.config.geometry == "sphere" else embeddings

    def _prefix(self, latents: torch.Tensor, active_dim: int | None) -> tuple[int, torch.Tensor]:
        """Number of a stage, and the part of latents up to its end."""
        if latents.ndim != 2:
            raise ValueError(f"the latents have shape {tuple(latents.shape)}, not (batch, width)")
        stage = self.config.stage_of(latents.shape[-1] if active_dim is None else active_dim)
        dim = self.config.matryoshka_dims[stage]
        if latents.shape[-1] < dim:
            raise ValueError(f"the latents have width {latents.shape[-1]}, which is less than active_dim {dim}")
        return stage, latents[:, :dim]

    def _codes(self, latents: torch.Tensor, active_dim: int | None) -> tuple[int, torch.Tensor]:
        """As [`_prefix`], in the coordinates of the funnel inside."""
        stage, latents = self._prefix(latents, active_dim)
        return stage, latents / self.latent_scale[: latents.shape[-1]]

    def _decoded(self, embeddings: torch.Tensor) -> torch.Tensor:
        if self.config.geometry != "sphere":
            return embeddings
        return F.normalize(embeddings, dim=-1) * self.config.embedding_norm


MatryoshkaFunnelModel.register_for_auto_class("AutoModel")

__all__ = ["MatryoshkaFunnelModel", "MatryoshkaFunnelOutput"]
