"""What is traced of Mamba encoders: texts as a whole, and texts that arrive in parts."""

from collections.abc import Iterator

import torch
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..modeling.band_head import PooledTokens, unit_length
from ..modeling.configuration_matryoshka_mamba import MatryoshkaMambaConfig
from ..modeling.mamba_layers import BlockState, TokenLayout
from ..modeling.modeling_matryoshka_mamba import MatryoshkaMambaModel
from .mamba_onnx_stream import STATE_INPUTS
from .onnx_check import token_batches
from .onnx_graph import TextGraph, TokenGraph


INPUTS = ["input_ids", "attention_mask"]
_STATE_AXES = {name: {1: "batch"} if name in ("conv", "ssm") else {0: "batch"} for name in STATE_INPUTS}


class _LongTexts:
    """Inputs that fill several chunks of the scan, to trace with, and more than a segment, to check with."""

    table_rows = True

    @property
    def config(self) -> PreTrainedConfig:
        return self.model.config

    def sample(self) -> dict[str, torch.Tensor]:
        # With a single chunk, their number would become a part of the graph.
        length = 2 * self.config.chunk_size + 3
        return next(batch for batch in self._batches(length) if batch["input_ids"].shape == (3, length))

    def batches(self) -> Iterator[dict[str, torch.Tensor]]:
        """Inputs of other shapes."""
        chunk = self.config.chunk_size
        return self._batches(getattr(self.config, "segment_length", 2 * chunk) + chunk + 1)

    def _batches(self, longest: int) -> Iterator[dict[str, torch.Tensor]]:
        return token_batches(INPUTS, self.config.vocab_size, longest)


class MambaTextGraph(_LongTexts, TextGraph):
    """What is traced of a `SentenceTransformer` around a [`MatryoshkaMambaModel`]; see [`TextGraph`]."""

    @property
    def config(self) -> PreTrainedConfig:
        return self.model[0].model.config


class MambaGraph(_LongTexts, TokenGraph):
    """What is traced of a [`MatryoshkaMambaModel`] by itself: from tokens to the embedding of all dimensions.

    Args:
        model ([`MatryoshkaMambaModel`]): The model, on the CPU.
    """

    output, output_axes = "sentence_embedding", {0: "batch"}

    def __init__(self, model: MatryoshkaMambaModel):
        nn.Module.__init__(self)
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        output = self.model(input_ids, attention_mask, return_tokens=False)
        return {"sentence_embedding": output.embeddings}

    def batches(self) -> Iterator[dict[str, torch.Tensor]]:
        """Inputs of other shapes, with enough texts to count whose nearest neighbours int8 changes."""
        yield from super().batches()
        ids = torch.randint(self.config.vocab_size, (64, 32), generator=torch.Generator().manual_seed(1))
        yield {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


class Mamba2Graph(_LongTexts, TokenGraph):
    """What is traced of a `Mamba2Model`: from tokens to hidden states; see [`TokenGraph`]."""


class MambaStreamGraph(_LongTexts, nn.Module):
    """What is traced of a causal [`MatryoshkaMambaModel`]: from further tokens and states to new states and embedding.

    The states of the blocks are stacked; see [`OnnxMambaState`].

    Args:
        model ([`MatryoshkaMambaModel`]): The model, on the CPU; its largest level computes.
    """

    axes = {**dict.fromkeys(INPUTS, {0: "batch", 1: "sequence"}), **_STATE_AXES}
    output_axes = {f"new_{name}": axis for name, axis in _STATE_AXES.items()} | {"sentence_embedding": {0: "batch"}}

    def __init__(self, model: MatryoshkaMambaModel):
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        conv: torch.Tensor,
        ssm: torch.Tensor,
        peak: torch.Tensor,
        total: torch.Tensor,
        weighted: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        model, config = self.model, self.config
        blocks = [BlockState(conv[layer], ssm[layer]) for layer in range(config.num_hidden_layers)]
        hidden, blocks = model._run(input_ids, config.level_sizes(), TokenLayout(attention_mask), blocks)
        pooled = PooledTokens(peak, total, weighted)
        pooled = pooled.merge(model.head.pooling(hidden, attention_mask, len(config.matryoshka_dims)))
        return {
            "sentence_embedding": unit_length(model.head(pooled), config.matryoshka_dims[-1]),
            "new_conv": torch.stack([block.conv for block in blocks]),
            "new_ssm": torch.stack([block.ssm for block in blocks]),
            "new_peak": pooled.peak,
            "new_total": pooled.total,
            "new_weighted": pooled.weighted,
        }

    def sample(self) -> dict[str, torch.Tensor]:
        tokens = super().sample()
        state = self.model.new_state(len(tokens["input_ids"]))
        return tokens | {
            "conv": torch.stack([block.conv for block in state.blocks]),
            "ssm": torch.stack([block.ssm for block in state.blocks]),
            **{name: getattr(state.pooled, name) for name in ("peak", "total", "weighted")},
        }


def text_graph(model: SentenceTransformer, dim: int) -> TextGraph:
    """What is traced of a `SentenceTransformer` of any kind."""
    mamba = _model_type(getattr(model[0], "model", None)) == MatryoshkaMambaConfig.model_type
    return MambaTextGraph(model, dim) if mamba else TextGraph(model, dim)


def token_graph(model: PreTrainedModel) -> TokenGraph:
    """What is traced of a model on tokens of any kind."""
    graphs = {MatryoshkaMambaConfig.model_type: MambaGraph, "mamba2": Mamba2Graph}
    return graphs.get(_model_type(model), TokenGraph)(model)


def _model_type(model: nn.Module | None) -> str | None:
    # Not the class, which may come from the code of a repo.
    return getattr(getattr(model, "config", None), "model_type", None)
