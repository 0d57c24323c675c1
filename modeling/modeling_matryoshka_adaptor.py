"""The Matryoshka-Adaptor (arXiv 2407.20243): embeddings in, embeddings with good prefixes out."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.utils import ModelOutput

from .configuration_matryoshka_adaptor import MatryoshkaAdaptorConfig
from .levels import resolve_matryoshka_dim
from .model_inputs import as_embeddings
from .nested_layers import NestedLinear, ZeroStartLinear
from .nested_model import NestedModelMixin


@dataclass
class MatryoshkaAdaptorOutput(ModelOutput):
    """
    Args:
        embeddings (`torch.FloatTensor` of shape `(batch, dim)`):
            Adapted embeddings of the level, of unit length.
    """

    embeddings: torch.FloatTensor | None = None


# A class of its own, because `_init_weights` never sees a custom module that holds no weights of its own: transformers
# takes it for initialised. What a layer starts as must therefore be said by the layer itself.
class IdentityStartLinear(NestedLinear):
    """A nested linear layer without bias that starts as the (leading part of the) identity."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features, bias=False)


class AdaptorMLP(nn.Module):
    """`S x + W2 act(W1 x + b1) + b2`, equal to `S x` before training because `W2` and `b2` start at zero."""

    def __init__(self, config: MatryoshkaAdaptorConfig):
        super().__init__()
        self.up = NestedLinear(config.embedding_dim, config.intermediate_size)
        self.act = ACT2FN[config.hidden_act]
        self.down = ZeroStartLinear(config.intermediate_size, config.output_dim)
        self.projection = IdentityStartLinear(config.embedding_dim, config.output_dim) if config.projection else None

    def forward(self, embeddings: torch.Tensor, dim: int) -> torch.Tensor:
        skip = embeddings[..., :dim] if self.projection is None else self.projection(embeddings, dim)
        return skip + self.down(self.act(self.up(embeddings)), dim)


class AdaptorLinear(nn.Module):
    """`W x`; starts as the identity."""

    def __init__(self, config: MatryoshkaAdaptorConfig):
        super().__init__()
        self.projection = IdentityStartLinear(config.embedding_dim, config.output_dim)

    def forward(self, embeddings: torch.Tensor, dim: int) -> torch.Tensor:
        return self.projection(embeddings, dim)


class AdaptorOrthogonal(nn.Module):
    """A fixed rotation (optional), then Householder reflections: full-width inner products do not change.

    The product of the reflections is kept in the compact form `I - V T V^T` (Schreiber and Van Loan, 1989), where the
    columns of `V` are the unit normals and `T` is upper triangular. Adjacent normals start equal, so that each pair
    of reflections is the identity before training.
    """

    def __init__(self, config: MatryoshkaAdaptorConfig):
        super().__init__()
        self.projection = None
        if config.projection:
            self.projection = IdentityStartLinear(config.embedding_dim, config.embedding_dim)
            self.projection.weight.requires_grad_(False)
        self.reflections = nn.Parameter(torch.empty(config.num_reflections, config.embedding_dim))

    def forward(self, embeddings: torch.Tensor, dim: int) -> torch.Tensor:
        if self.projection is not None:
            embeddings = self.projection(embeddings)
        # The triangular solve exists only in single and double precision.
        normals = F.normalize(self.reflections.float(), dim=-1)
        count = normals.shape[0]
        identity = torch.eye(count, device=normals.device)
        inverse = torch.triu(normals @ normals.T, diagonal=1) + identity / 2
        triangular = torch.linalg.solve_triangular(inverse, identity, upper=True)
        update = ((embeddings.float() @ normals.T) @ triangular.T) @ normals[:, :dim]
        return embeddings[..., :dim] - update.to(embeddings.dtype)


class AdaptorPermutation(nn.Module):
    """A learned order of the coordinates, the highest score first; starts as the given order.

    Training goes through the relaxed sort of NeuralSort (arXiv 1903.08850, Eq. 5) with a straight-through estimate:
    the values are those of the exact order, the gradient is that of the relaxation.
    """

    def __init__(self, config: MatryoshkaAdaptorConfig):
        super().__init__()
        self.temperature = config.sort_temperature
        self.output_dim = config.output_dim
        self.scores = nn.Parameter(torch.empty(config.embedding_dim))

    @property
    def order(self) -> torch.Tensor:
        """Input coordinate of each output coordinate, `torch.LongTensor` of shape `(output_dim,)`."""
        return torch.sort(self.scores, descending=True, stable=True).indices[: self.output_dim]

    def forward(self, embeddings: torch.Tensor, dim: int) -> torch.Tensor:
        exact = embeddings[..., self.order[:dim]]
        if not (self.training and self.scores.requires_grad):
            return exact
        count = self.scores.shape[0]
        differences = (self.scores[:, None] - self.scores[None, :]).abs().sum(-1)
        ranks = torch.arange(1, dim + 1, device=self.scores.device)
        logits = (count + 1 - 2 * ranks)[:, None] * self.scores[None, :] - differences[None, :]
        relaxed = F.linear(embeddings, torch.softmax(logits / self.temperature, dim=-1).to(embeddings.dtype))
        return relaxed + (exact - relaxed).detach()


ADAPTORS = {
    "mlp": AdaptorMLP,
    "linear": AdaptorLinear,
    "orthogonal": AdaptorOrthogonal,
    "permutation": AdaptorPermutation,
}


class MatryoshkaAdaptorModel(NestedModelMixin, PreTrainedModel):
    """Maps embeddings to embeddings whose every trained prefix is a good embedding by itself.

    One map serves queries and documents. The small levels compute with leading rows of the weights of the large ones.
    """

    config: MatryoshkaAdaptorConfig
    base_model_prefix = "adaptor"
    main_input_name = "embeddings"

    def __init__(self, config: MatryoshkaAdaptorConfig):
        super().__init__(config)
        self.adaptor = ADAPTORS[config.kind](config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, ZeroStartLinear):
            init.zeros_(module.weight)
        elif isinstance(module, IdentityStartLinear):
            init.eye_(module.weight)
        elif isinstance(module, AdaptorOrthogonal):
            init.normal_(module.reflections)
            init.copy_(module.reflections, module.reflections[::2].repeat_interleave(2, dim=0))
        elif isinstance(module, AdaptorPermutation):
            count = module.scores.shape[0]
            init.copy_(module.scores, torch.arange(count, 0, -1, dtype=module.scores.dtype) / count)

    def forward(
        self, embeddings: torch.Tensor, level: int | str | None = None, matryoshka_dim: int | None = None
    ) -> MatryoshkaAdaptorOutput:
        """
        Args:
            embeddings (`torch.FloatTensor` of shape `(..., embedding_dim)`):
                Full-width embeddings of the base model.
            level (`int` or `str`, *optional*):
                The level to compute, an index or a name such as `"d64"`; the largest by default.
            matryoshka_dim (`int`, *optional*):
                The level by its width; give this or `level`, not both.

        Returns:
            [`MatryoshkaAdaptorOutput`]: `embeddings` of shape `(..., dim)` and unit length.

        Raises:
            ValueError: If the level does not exist, or the embeddings have another width or another than a
                floating-point type.
        """
        config = self.config
        if level is not None and matryoshka_dim is not None:
            raise ValueError(f"give level ({level!r}) or matryoshka_dim ({matryoshka_dim}), not both")
        if matryoshka_dim is not None:
            dim = resolve_matryoshka_dim(config.matryoshka_dims, matryoshka_dim)
        else:
            dim = config.level_dim(level)
        if embeddings.shape[-1] != config.embedding_dim:
            raise ValueError(
                f"the embeddings have width {embeddings.shape[-1]}, but this adaptor takes {config.embedding_dim}"
            )
        embeddings = as_embeddings(embeddings, self.dtype)
        return MatryoshkaAdaptorOutput(embeddings=F.normalize(self.adaptor(embeddings, dim), dim=-1))

    def cost(self, level: int | str | None = None) -> dict[str, int]:
        """What one level costs: `parameters` it reads, `macs` an embedding, `bytes_per_vector` of its float32 output.

        Raises:
            ValueError: If the level does not exist.
        """
        config, dim = self.config, self.config.level_dim(level)
        width, hidden = config.embedding_dim, config.intermediate_size
        if config.kind == "mlp":
            weights = width * hidden + hidden * dim + (width * dim if config.projection else 0)
            parameters = weights + hidden + dim
        elif config.kind == "linear":
            weights = parameters = width * dim
        elif config.kind == "orthogonal":
            # Counted as it is computed, with the triangular factor formed once for a batch.
            count = config.num_reflections
            base = width * width if config.projection else 0
            weights = base + count * width + count * count + count * dim
            parameters = base + count * width
        else:
            weights, parameters = 0, dim
        return {"parameters": parameters, "macs": weights, "bytes_per_vector": 4 * dim}

    @classmethod
    def levels_are_slices(cls, config: MatryoshkaAdaptorConfig) -> bool:
        # Every level of an orthogonal adaptor reads all reflections.
        return config.kind != "orthogonal"

    @torch.no_grad()
    def cut(self, level: int | str | None = None) -> Self:
        """A level as a model of its own, with contiguous weights and the levels up to it.

        A level of an orthogonal adaptor below the full width becomes a `"linear"` one: the leading rows of a rotation
        are no rotation, and as dense rows they give equal outputs for fewer operations.

        Raises:
            ValueError: If the level does not exist.
        """
        config = self.config.cut(level)
        if config.kind == self.config.kind:
            return super().cut(level)
        identity = torch.eye(config.embedding_dim, dtype=self.dtype, device=self.device)
        return self._assemble(config, {"adaptor.projection.weight": self.adaptor(identity, config.output_dim).T})


MatryoshkaAdaptorModel.register_for_auto_class("AutoModel")

__all__ = ["MatryoshkaAdaptorModel", "MatryoshkaAdaptorOutput"]
