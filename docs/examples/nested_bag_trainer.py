"""A trainer whose largest level teaches the others."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from hf_matryoshka import MatryoshkaTrainer


class NestedBagTrainer(MatryoshkaTrainer):
    """Adds to the mean loss of the levels what ties them together; it is logged under its name."""

    def tie_losses(
        self, model: nn.Module, inputs: dict[str, Any], outputs: dict[int, Any], shared: Any = None
    ) -> dict[str, torch.Tensor]:
        largest = outputs[max(outputs)].logits.detach().softmax(dim=-1)
        others = [outputs[level].logits.log_softmax(dim=-1) for level in sorted(outputs)[:-1]]
        terms = [F.kl_div(log_probabilities, largest, reduction="batchmean") for log_probabilities in others]
        return {"distillation": sum(terms, torch.zeros(())) / max(1, len(terms))}
