"""Gates along a chain of levels with which no level loses to a smaller one on the items they were chosen on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..data.evaluation_mode import evaluating
from .delta_gates import check_chain, check_gate, delta_weights, inexact_gate_reason


GATES = (0.0, 0.25, 0.5, 0.75, 1.0)
# Loss of each item (row, text) at a level of the model, and what each stands for (such as its tokens) or `None`.
Score = Callable[[PreTrainedModel, str], tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True)
class Gate:
    """The gate that was chosen for what one level has beyond a smaller one.

    Args:
        smaller, larger (`str`): Names of the levels.
        alpha (`float`): What the output weights of the delta were multiplied by.
        losses (`dict[float, float]`): Mean calibration loss of the larger level with each gate that was tried.
        smaller_loss (`float`): That of the smaller level, with the gates before this one.
        inexact (`str`, *optional*): Why a gate of 0 is not the smaller level, see
            [`~surgery.delta_gates.inexact_gate_reason`].
    """

    smaller: str
    larger: str
    alpha: float
    losses: dict[float, float]
    smaller_loss: float
    inexact: str | None

    @property
    def loss(self) -> float:
        """Mean calibration loss of the larger level with the chosen gate."""
        return self.losses[self.alpha]


@torch.no_grad()
def search_gates(
    model: PreTrainedModel,
    score: Score,
    chain: Sequence[int | str] | None = None,
    gates: Sequence[float] = GATES,
    progress: bool = True,
) -> list[Gate]:
    """Chooses a gate ([`scale_delta`]) for each step of a chain of levels, and folds them into the weights.

    The smallest step comes first. Its gate is the one with the lowest mean loss of the larger level, given the gates
    before it; of equals the largest. As 0 is among them, and a gate of 0 is the smaller level, the loss on these items
    cannot go up along the chain: it is monotone by construction. That holds for the items that the gates were chosen
    on and for no others; what may be claimed is a [`~evaluation.certificate.Certificate`] on a second split. Where a
    gate of 0 is not the smaller level ([`inexact_gate_reason`]), 0 is tried like any other gate, and nothing holds by
    construction.

    Args:
        model (`PreTrainedModel`): A Delta encoder, with or without a head; changed in place.
        score (`Callable`): Called with the model and the name of a level; returns the loss of each calibration item,
            the same items in each call, and their weights or `None`.
        chain (`Sequence`, *optional*): Levels, each inside the next; by default the longest chain of the model.
        gates (`Sequence[float]`, *optional*): The gates to try, 0 and 1 among them.
        progress (`bool`, *optional*, defaults to `True`): Whether to show progress.

    Returns:
        `list[Gate]`: One for each step of the chain.

    Raises:
        ValueError: If the chain or the gates are not as they should be, or a loss is not finite. The weights are then
            as they were; also where a search is interrupted.
    """
    chain = check_chain(model, chain)
    gates = check_gates(gates)
    steps = list(zip(chain, chain[1:], strict=False))
    weights = [[(part, part.clone()) for part in delta_weights(model, *step)] for step in steps]
    found: list[Gate] = []
    try:
        with evaluating(model), tqdm(total=1 + len(gates) * len(steps), desc="Gates", disable=not progress) as bar:
            below = _mean_loss(model, score, chain[0])
            bar.update()
            for (smaller, larger), parts in zip(steps, weights, strict=True):
                inexact, losses = inexact_gate_reason(model, smaller, larger), {}
                for alpha in gates:
                    if alpha == 0 and inexact is None:
                        losses[alpha] = below  # the same function: to measure it would only add rounding
                    else:
                        _gate(parts, alpha)
                        losses[alpha] = _mean_loss(model, score, larger)
                    bar.update()
                lowest = min(losses.values())
                best = max(alpha for alpha in gates if losses[alpha] == lowest)
                _gate(parts, best)
                found.append(Gate(smaller, larger, best, losses, below, inexact))
                below = lowest
    except BaseException:
        for parts in weights:
            _gate(parts, 1.0)
        raise
    return found


def check_gates(gates: Sequence[float]) -> list[float]:
    """The gates to try, in order and each once.

    Raises:
        ValueError: If one is out of range, or 0 or 1 is missing.
    """
    found = sorted({float(gate) for gate in gates})
    for gate in found:
        check_gate(gate)
    if not {0.0, 1.0} <= set(found):
        shown = ", ".join(f"{gate:g}" for gate in found) or "none"
        raise ValueError(f"the gates to try must hold 0 (the smaller level) and 1 (as trained), but are {shown}")
    return found


def _gate(parts: list[tuple[torch.Tensor, torch.Tensor]], alpha: float) -> None:
    """Sets weights to the gate times what they were."""
    for part, original in parts:
        part.zero_() if alpha == 0 else part.copy_(original * alpha)


def _mean_loss(model: PreTrainedModel, score: Score, level: str) -> float:
    losses, weights = score(model, level)
    mean = float(np.average(losses, weights=weights))
    if not np.isfinite(mean):
        raise ValueError(f"the loss of level {level} is not finite on the calibration items")
    return mean
