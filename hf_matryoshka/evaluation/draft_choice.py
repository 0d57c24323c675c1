"""Which level should draft for another in speculative decoding, and how many tokens, from what is measured."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..data.evaluation_mode import evaluation_mode
from ..modeling.nested_speculation import expected_tokens


DRAFT_LENGTHS = (2, 4, 6, 8)


@dataclass
class DraftChoice:
    """What [`choose_draft`] found.

    Args:
        draft_level (`str`, *optional*): The level that drafts; `None` where plain decoding is faster.
        num_draft_tokens (`int`, *optional*): Tokens that it drafts a round.
        rows (`list[dict]`): For each level and number of tokens the `acceptance` (share of positions at which it
            predicts what the verifier does), `tokens_per_pass` (expected, arXiv 2211.17192, equation 1), `speedup`
            (expected, over plain decoding), `draft_ms` a token and `verify_ms` a pass.
    """

    draft_level: str | None
    num_draft_tokens: int | None
    rows: list[dict[str, Any]]

    @property
    def options(self) -> dict[str, Any]:
        """What to hand to `generate`."""
        if self.draft_level is None:
            return {}
        return {"draft_level": self.draft_level, "num_draft_tokens": self.num_draft_tokens}


def choose_draft(
    model: PreTrainedModel,
    prompts: torch.Tensor,
    level: int | str | None = None,
    lengths: Sequence[int] = DRAFT_LENGTHS,
    max_new_tokens: int = 64,
    repeats: int = 10,
    progress: bool = False,
) -> DraftChoice:
    """Measures what every smaller level would be worth as a draft, on texts that the model writes itself, greedily.

    Args:
        model (`PreTrainedModel`): A [`MatryoshkaGPTForCausalLM`].
        prompts (`torch.LongTensor` of shape `(texts, length)`): Prompts, without padding.
        level (`int` or `str`, *optional*): The level that verifies; the largest by default.
        lengths (`Sequence[int]`, *optional*): Numbers of drafted tokens to look at.
        max_new_tokens (`int`, *optional*, defaults to 64): Tokens of a text.
        repeats (`int`, *optional*, defaults to 10): Timed passes, of which the median counts.
        progress (`bool`, *optional*, defaults to `False`): Whether to show progress.

    Raises:
        ValueError: If the level does not exist or is the smallest, or a number is below 1.
    """
    config, full = model.config, model.config.level_index(level)
    if not full:
        raise ValueError(f"level {config.levels[0]} is the smallest, so nothing can draft for it")
    if min(*lengths, max_new_tokens, repeats) < 1:
        raise ValueError("lengths, max_new_tokens and repeats must be at least 1")
    with evaluation_mode(model), torch.inference_mode():
        texts = model.generate(prompts, max_new_tokens=max_new_tokens, level=full, eos_token_id=None)
        best = _predictions(model, texts, full, prompts.shape[1])
        passes = {count: _milliseconds(model, texts, full, count + 1, repeats) for count in (0, *lengths)}
        rows = []
        for draft in tqdm(range(full), desc="Drafts", disable=not progress):
            acceptance = (_predictions(model, texts, draft, prompts.shape[1]) == best).float().mean().item()
            milliseconds = _milliseconds(model, texts, draft, 1, repeats)
            for count in lengths:
                tokens = expected_tokens(acceptance, count)
                speedup = tokens * passes[0] / (count * milliseconds + passes[count])
                row = {"draft_level": config.levels[draft], "num_draft_tokens": count, "acceptance": acceptance}
                row |= {"tokens_per_pass": tokens, "speedup": speedup}
                rows.append(row | {"draft_ms": milliseconds, "verify_ms": passes[count]})
    found = max(rows, key=lambda row: row["speedup"])
    if found["speedup"] <= 1:
        return DraftChoice(None, None, rows)
    return DraftChoice(found["draft_level"], found["num_draft_tokens"], rows)


def _predictions(model: PreTrainedModel, texts: torch.Tensor, level: int, start: int) -> torch.Tensor:
    """What a level predicts for each token from `start` on."""
    return model(texts, level=level, use_cache=False).logits[:, start - 1 : -1].argmax(-1)


def _milliseconds(model: PreTrainedModel, texts: torch.Tensor, level: int, tokens: int, repeats: int) -> float:
    """Median time of a pass over a few tokens after a text."""
    cache = model(texts[:1, :-tokens], level=level, use_cache=True).cache
    times = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        model(texts[:1, -tokens:], level=level, cache=cache, use_cache=True)
        times.append(time.perf_counter() - began)
        cache.crop(-tokens)
    return 1000 * statistics.median(times[2:])
