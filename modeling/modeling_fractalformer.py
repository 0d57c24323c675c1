"""The FractalFormer: decoders side by side inside decoders, all of one set of weights."""

from typing import Self

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from .configuration_fractalformer import FractalFormerConfig
from .modeling_matryoshka_gpt import MatryoshkaGPTForCausalLM, MatryoshkaGPTModel


class FractalFormerMixin:
    """Dolls that are no leading parts: those of a depth lie one after the other along every axis."""

    @classmethod
    def levels_are_slices(cls, config: FractalFormerConfig) -> bool:
        return False

    def level_shapes(self, level: int | str | None = None) -> dict[str, torch.Size]:
        with torch.device("meta"), no_init_weights():
            model = self._new(self.config.cut(level))
        return {name: part.shape for name, part in model.state_dict().items()}

    @torch.no_grad()
    def cut(self, level: int | str | None = None) -> Self:
        """A doll as a model of its own, with contiguous weights and the dolls inside it.

        Args:
            level (`int`, `str` or `None`): The doll, `None` for the whole.

        Raises:
            ValueError: If it does not exist.
        """
        slot, shapes = self.config.level_sizes(level).slot, self.level_shapes(level)
        parts = {}
        for name, tensor in self.state_dict().items():
            for axis, size in enumerate(shapes[name]):
                if size < tensor.shape[axis]:
                    tensor = tensor.narrow(axis, slot * size, size)
            parts[name] = tensor
        return self._assemble(self.config.cut(level), parts)

    def doll(self, level: int | str) -> PreTrainedModel:
        """Not here: only leading parts can be views of the weights.

        Raises:
            ValueError: Always; it says what to do instead.
        """
        name = self.config.level_name(level)
        raise ValueError(
            f"doll {name} of a FractalFormer is no view; call the model with level={name!r}, or cut it out"
        )


class FractalFormerModel(FractalFormerMixin, MatryoshkaGPTModel):
    """The decoder without a head, as any of its dolls ([`FractalFormerConfig`])."""

    config: FractalFormerConfig


class FractalFormerForCausalLM(FractalFormerMixin, MatryoshkaGPTForCausalLM):
    """The decoder with its language-modeling head; `generate(..., level="L1.0")` writes as any doll."""

    config: FractalFormerConfig

    def __init__(self, config: FractalFormerConfig):
        super().__init__(config)
        self.model = FractalFormerModel(config)
        self.post_init()

    @torch.no_grad()
    def route(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, depth: int | None = None
    ) -> tuple[list[str], torch.Tensor]:
        """Which doll each text is most likely for.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`): Prompts, of two tokens or more.
            attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*): 0 for padding, on either side.
            depth (`int`, *optional*): The depth whose dolls to choose from; the smallest by default.

        Returns:
            `tuple[list[str], torch.Tensor]`: the name of the doll of each text, and the mean log-likelihood of its
            tokens for each doll of the depth, of shape `(batch, dolls)`.

        Raises:
            ValueError: If there is no such depth, or a text has fewer than two tokens.
        """
        depth = self.config.depth - 1 if depth is None else depth
        if not 0 <= depth < self.config.depth:
            raise ValueError(f"depth {depth} does not exist; give one from 0 to {self.config.depth - 1}")
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        known = (real[:, 1:] * real[:, :-1]).bool()
        if not known.any(1).all():
            raise ValueError("a text has fewer than two tokens, too few to choose a doll by")
        names = [f"L{depth}.{place}" for place in range(self.config.children**depth)]
        positions = (real.cumsum(1) - 1).clamp_min(0)
        scores = []
        for name in names:
            inputs = {"attention_mask": attention_mask, "position_ids": positions, "use_cache": False}
            logits = self(input_ids, level=name, **inputs).logits[:, :-1].float()
            losses = F.cross_entropy(logits.transpose(1, 2), input_ids[:, 1:], reduction="none")
            scores.append(-losses.masked_fill(~known, 0).sum(1) / known.sum(1))
        likelihoods = torch.stack(scores, dim=1)
        return [names[place] for place in likelihoods.argmax(1).tolist()], likelihoods


FractalFormerModel.register_for_auto_class("AutoModel")
FractalFormerForCausalLM.register_for_auto_class("AutoModelForCausalLM")

__all__ = ["FractalFormerForCausalLM", "FractalFormerModel"]
