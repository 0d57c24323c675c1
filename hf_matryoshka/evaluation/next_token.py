"""How well the levels of a decoder predict the next token."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..data.evaluation_mode import evaluation_mode
from .bootstrap import bootstrap_mean
from .curve import Curve, LevelPoint


METRIC = "negative_nll"


@torch.no_grad()
def next_token_losses(
    model: PreTrainedModel,
    batches: Iterable[Mapping[str, torch.Tensor]],
    level: int | str | None = None,
    progress: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Negative log-likelihood (nats) of the tokens of each row, a mean over them, and how many there are.

    Args:
        model (`PreTrainedModel`):
            A language model; a stock one where `level` is not given.
        batches (`Iterable[Mapping]`):
            As [`~data.causal_collator.CausalCollator`] makes them.
        level (`int` or `str`, *optional*):
            The level of a Matryoshka GPT.
        progress (`bool`, *optional*, defaults to `False`):
            Whether to show progress.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: the mean of each row, and the tokens it is over, both of shape `(rows,)`; rows
        without a token to predict are left out.
    """
    losses, counts = [], []
    named = {} if level is None else {"level": level}
    with evaluation_mode(model):
        for batch in tqdm(batches, desc="Scoring", disable=not progress):
            labels = batch["labels"][:, 1:].to(model.device)
            used = [name for name in batch if name not in ("labels", "streams")]
            inputs = {name: batch[name].to(model.device) for name in used}
            logits = model(**inputs, use_cache=False, **named).logits[:, :-1].float()
            each = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none")
            losses.append(each.double().sum(1).cpu())
            counts.append((labels != -100).sum(1).cpu())
    sums, tokens = (torch.cat(part).numpy() if part else np.zeros(0) for part in (losses, counts))
    known = tokens > 0
    return sums[known] / tokens[known], tokens[known].astype(np.float64)


def next_token_curve(
    model: PreTrainedModel,
    batches: Iterable[Mapping[str, torch.Tensor]] | Callable[[str], Iterable[Mapping[str, torch.Tensor]]],
    split: str,
    progress: bool = False,
) -> Curve:
    """Quality against cost of each level; the quality is the mean log-likelihood of a token, in nats.

    Args:
        model (`PreTrainedModel`):
            A Matryoshka GPT.
        batches (`Iterable[Mapping]`):
            The same ones whenever they are read; or those of each level, which are then not compared one by one.
        split (`str`):
            Name of the data behind them.
        progress (`bool`, *optional*, defaults to `False`):
            Whether to show progress.
    """
    points = []
    for level in model.config.levels:
        own = batches(level) if callable(batches) else batches
        losses, tokens = next_token_losses(model, own, level, progress)
        mean, low, high = bootstrap_mean(-losses, weights=tokens)
        compared = () if callable(batches) else (-losses, tokens)
        points.append(LevelPoint(level, None, mean, low, high, dict(model.cost(level)), *compared))
    return Curve(points, METRIC, split, "ours")
