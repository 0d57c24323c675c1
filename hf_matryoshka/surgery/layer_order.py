"""Which layers of a nested encoder its shallow budgets run."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.evaluation_mode import evaluating
from .text_batches import text_batches


class Chain(NamedTuple):
    """Layers that were removed one after the other.

    Args:
        kept (`tuple[int, ...]`): Those that are left, from the input on.
        removed (`tuple[int, ...]`): Those that are not, the first one first.
        score (`float`): Sum of the scores at the depths that count.
    """

    kept: tuple[int, ...]
    removed: tuple[int, ...]
    score: float


def order_layers_by_importance(
    model: PreTrainedModel,
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    num_texts: int = 256,
    batch_size: int = 64,
    max_length: int = 128,
    beam: int = 3,
    progress: bool = True,
) -> list[int]:
    """Chooses which layers the budgets of fewer layers run: those that together come closest to all layers.

    Layers are removed one by one, each time those without which the mean-pooled output of the encoder keeps most of
    its direction (the mean cosine to that of all layers, over the texts); the `beam` best sets are pursued at each
    depth, and what counts in the end are the depths of the model's budgets. The first layers, which a model runs by
    default, are the wrong ones for most trained encoders: the last layer prepares the output. DynaBERT (Hou et al.,
    arXiv:2004.04037, section 2.2) keeps layers at even distances; this asks the model.

    The full budget stays as it was, exactly. Order the layers before a model is trained: the shallow budgets become
    others.

    Args:
        model (`PreTrainedModel`):
            A Delta encoder, with or without a head. Its `config.layer_order` is set.
        texts (`Sequence[str]`):
            Texts like those that the model is for.
        tokenizer (`PreTrainedTokenizerBase`):
            The tokenizer of the model.
        num_texts (`int`, *optional*, defaults to 256):
            Number of texts to measure on, taken at even steps from all of `texts`.
        batch_size (`int`, *optional*, defaults to 64):
            Texts of a batch.
        max_length (`int`, *optional*, defaults to 128):
            Tokens of a text, at most.
        beam (`int`, *optional*, defaults to 3):
            Sets of layers that are pursued at each depth; `beam` times as many passes as layers squared, over 2.
        progress (`bool`, *optional*, defaults to `True`):
            Whether to show a progress bar: for 22 layers on a CPU this takes minutes.

    Returns:
        `list[int]`: The order.

    Raises:
        ValueError: If the model has no budgets or layers of different width, or the texts are not as they should be;
            nothing is changed then.
    """
    config = model.config
    if not hasattr(config, "layer_order"):
        raise ValueError(f"{type(model).__name__} has no budgets of depth; give a Delta encoder")
    if len(set(config.level_sizes().intermediate)) > 1:
        raise ValueError(
            "the layers of the model differ in width, and so do the budgets that keep other layers; give the "
            "layer_order with the budgets, when the model is made"
        )
    if beam < 1:
        raise ValueError(f"beam is {beam}; give a number of at least 1")
    depth = config.num_hidden_layers
    wanted = {config.budget(level).depth for level in config.levels} - {depth}
    batches = list(text_batches(model, texts, tokenizer, num_texts, batch_size, max_length))
    if not wanted:
        return list(range(depth))
    # The first layer of a ModernBERT cannot be replaced, see its config.
    fixed = {0} if config.stock_model_type == "modernbert" else set()
    whole = tuple(range(depth))
    sizes, removable = range(depth - 1, min(wanted) - 1, -1), depth - len(fixed)
    # Sets pursued at each depth, as long as there are so many, and what may be removed from each.
    total = sum(min(beam, math.comb(removable, step)) * (removable - step) for step in range(len(sizes)))
    with evaluating(model), tqdm(total=total, desc="Choosing layers", disable=not progress) as bar:
        targets = _pooled(model, batches, whole)
        chains, scores = [Chain(whole, (), 0.0)], {}
        for size in sizes:
            found: dict[tuple[int, ...], Chain] = {}
            for chain in chains:
                for layer in set(chain.kept) - fixed:
                    kept = tuple(other for other in chain.kept if other != layer)
                    if kept not in scores:
                        pooled = _pooled(model, batches, kept)
                        scores[kept] = F.cosine_similarity(pooled, targets).mean().item()
                    score = chain.score + (scores[kept] if size in wanted else 0)
                    if kept not in found or score > found[kept].score:
                        found[kept] = Chain(kept, (*chain.removed, layer), score)
                    bar.update()
            # Where this depth is none of a budget, it still says which sets are worth pursuing.
            rank = {kept: chain.score + (0 if size in wanted else scores[kept]) for kept, chain in found.items()}
            chains = [found[kept] for kept in sorted(found, key=lambda kept: (-rank[kept], kept))[:beam]]
    config.layer_order = [*chains[0].kept, *reversed(chains[0].removed)]
    return config.layer_order


@torch.no_grad()
def _pooled(model: PreTrainedModel, batches: list[dict], layers: tuple[int, ...]) -> torch.Tensor:
    """Mean-pooled outputs of shape `(texts, hidden)` with these layers only."""
    pooled = []
    for batch in batches:
        inputs = {name: value.to(model.device) for name, value in batch.items()}
        hidden = model.base_model(**inputs, layers=layers).last_hidden_state.float()
        mask = inputs["attention_mask"].unsqueeze(-1)
        pooled.append((hidden * mask).sum(1) / mask.sum(1))
    return torch.cat(pooled)
