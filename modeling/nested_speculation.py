"""Speculative decoding of a Matryoshka GPT: a small level drafts, a larger one verifies, of the same weights."""

import torch
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation.streamers import BaseStreamer
from transformers.generation.utils import GenerateDecoderOnlyOutput


MAX_DRAFT_TOKENS = 8


class LevelPass:
    """The running pass of one level over texts that grow unequally.

    Each call adds as many slots to the keys and values of all rows; what a row did not keep of them stays as a hole
    that attention does not see, so that rows of a batch need not agree on a length.

    Args:
        model (`PreTrainedModel`): A language model.
        level (`str`, *optional*): The level of a [`MatryoshkaGPTForCausalLM`]; other models have none.
        cache ([`~transformers.Cache`], *optional*): Keys and values to go on with.
    """

    def __init__(self, model: PreTrainedModel, level: str | None, cache: Cache | None = None):
        self.model, self.level = model, {} if level is None else {"level": level}
        self.cache = DynamicCache(config=model.config) if cache is None else cache
        self.seen: torch.Tensor | None = None

    def start(self, input_ids: torch.Tensor, positions: torch.Tensor, real: torch.Tensor) -> None:
        """Takes in the prompts, all but what the cache has already."""
        past = self.cache.get_seq_length()
        self.seen = real[:, :past]
        if past < input_ids.shape[1]:
            self.feed(input_ids[:, past:], positions[:, past:], real[:, past:])

    def feed(
        self, input_ids: torch.Tensor, positions: torch.Tensor, real: torch.Tensor, logits_to_keep: int = 1
    ) -> torch.Tensor:
        """Logits of the last `logits_to_keep` of some more tokens, `(batch, logits_to_keep, vocab_size)`.

        Args:
            input_ids, positions (`torch.LongTensor` of shape `(batch, tokens)`): The tokens and where they stand.
            real (`torch.BoolTensor` of shape `(batch, tokens)`): Which of them are tokens of the text.
        """
        self.seen = torch.cat([self.seen, real], dim=1)
        whole = bool(self.seen.all())
        return self.model(
            input_ids=input_ids,
            attention_mask=None if whole else self.seen.long(),
            position_ids=positions,
            cache=self.cache,
            use_cache=True,
            logits_to_keep=logits_to_keep,
            **self.level,
        ).logits.float()

    def keep(self, counts: torch.Tensor, tokens: int) -> None:
        """Forgets all but the first `counts[row]` of the last `tokens` slots."""
        if not tokens:
            return
        kept = torch.arange(tokens, device=counts.device) < counts[:, None]
        self.seen[:, -tokens:] &= kept
        unused = tokens - int(counts.max())
        if unused > 0:
            self.cache.crop(-unused)
            self.seen = self.seen[:, :-unused]


class Texts:
    """The texts of a batch, each of its own length.

    Args:
        input_ids (`torch.LongTensor` of shape `(batch, length)`): The prompts, padding before them.
        real (`torch.BoolTensor` of shape `(batch, length)`): Which are no padding.
    """

    def __init__(self, input_ids: torch.Tensor, real: torch.Tensor):
        self.ids, self.offset = input_ids, input_ids.shape[1] - real.sum(1)
        self.lengths = torch.full_like(self.offset, input_ids.shape[1])
        self.running = torch.ones_like(self.offset, dtype=torch.bool)

    def row(self, row: int, more: torch.Tensor) -> torch.Tensor:
        """A text and some tokens after it, in every row of `(batch, length)`: what processes or stops texts may expect
        as many rows as there are prompts."""
        return torch.cat([self.ids[row, : self.lengths[row]], more]).expand(len(self.ids), -1)

    def last(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The last tokens of each text and where they stand."""
        places = self.lengths[:, None] + torch.arange(-count, 0, device=self.ids.device)
        return self.ids.gather(1, places), (places - self.offset[:, None]).clamp_min(0)

    def append(self, tokens: torch.Tensor, counts: torch.Tensor) -> None:
        """Adds the first `counts[row]` of `tokens` of shape `(batch, n)`."""
        longest = int((self.lengths + counts).max())
        if longest > self.ids.shape[1]:
            self.ids = torch.nn.functional.pad(self.ids, (0, longest - self.ids.shape[1]))
        for row, count in enumerate(counts.tolist()):
            start = int(self.lengths[row])
            self.ids[row, start : start + count] = tokens[row, :count]
        self.lengths = self.lengths + counts


def check_draft(model: PreTrainedModel, level: int | str | None, draft_level: int | str) -> tuple[str, str]:
    """Names of the level that verifies and of the one that drafts.

    Raises:
        ValueError: If one does not exist, or the draft is not the smaller one.
    """
    config = model.config
    large, small = config.level_index(level), config.level_index(draft_level)
    if small >= large:
        smaller = ", ".join(config.levels[:large]) or "none: it is the smallest"
        raise ValueError(
            f"draft_level {config.levels[small]} is not smaller than {config.levels[large]}, which verifies; smaller "
            f"levels are {smaller}"
        )
    return config.levels[large], config.levels[small]


def check_draft_model(model: PreTrainedModel, draft_model: PreTrainedModel) -> None:
    """Raise `ValueError` if a model cannot draft for another: their vocabularies differ."""
    own, other = model.config.vocab_size, draft_model.config.vocab_size
    if own != other:
        raise ValueError(f"draft_model has {other} tokens and the model {own}; give one of the same vocabulary")


def expected_tokens(acceptance: float, count: int) -> float:
    """Tokens of a verifying pass if each of `count` drafted tokens is accepted with a probability (Leviathan et al.,
    arXiv 2211.17192, equation 1)."""
    if acceptance >= 1:
        return count + 1.0
    return (1 - acceptance ** (count + 1)) / (1 - acceptance)


def best_draft_length(acceptance: float, cost_ratio: float) -> int:
    """How many tokens to draft for the most tokens a unit of time (arXiv 2211.17192, theorem 3.8).

    Args:
        acceptance (`float`): Share of drafted tokens that are accepted.
        cost_ratio (`float`): Time of a drafted token over that of a verifying pass.
    """
    return max(
        range(1, MAX_DRAFT_TOKENS + 1), key=lambda count: expected_tokens(acceptance, count) / (count * cost_ratio + 1)
    )


class DraftLength:
    """The number of tokens to draft, from what was accepted so far.

    Args:
        cost_ratio (`float`): Time of a drafted token over that of a verifying pass.
        fixed (`int`, *optional*): Always this many.
    """

    def __init__(self, cost_ratio: float, fixed: int | None = None):
        self.cost_ratio, self.fixed = cost_ratio, fixed
        # As if 3 of 4 had been accepted before.
        self.accepted, self.tried = 3.0, 4.0

    def __call__(self) -> int:
        return self.fixed or best_draft_length(self.accepted / self.tried, self.cost_ratio)

    def update(self, accepted: torch.Tensor, drafted: int) -> None:
        """Counts a round: the tokens up to the first that was refused were tried."""
        self.accepted = 0.9 * self.accepted + float(accepted.sum())
        self.tried = 0.9 * self.tried + float((accepted + 1).clamp_max(drafted).sum())


def speculative_decoding(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    draft_level: int | str | None = None,
    num_draft_tokens: int | None = None,
    draft_model: PreTrainedModel | None = None,
    streamer: BaseStreamer | None = None,
    **model_kwargs,
) -> GenerateDecoderOnlyOutput | torch.Tensor:
    """A decoding loop for `generate(custom_generate=...)`: what the larger level would have generated, from fewer
    passes of it (Leviathan et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318). Greedy decoding gives the same
    tokens as without drafts, sampling the same distribution. Rows of a batch accept on their own.

    Args:
        draft_level (`int` or `str`, *optional*): The level that drafts.
        num_draft_tokens (`int`, *optional*): Tokens that it drafts a round; by default chosen by what is accepted.
        draft_model (`PreTrainedModel`, *optional*): Another model that drafts, instead of a level.
        The others are handed over by `generate`; `level` in `model_kwargs` verifies.

    Returns:
        `torch.LongTensor` of shape `(batch, length)`, or with `return_dict_in_generate` its output class with
        `sequences` and `cache`.

    Raises:
        ValueError: As [`check_draft`] and [`check_draft_model`], or for outputs that are not kept.
    """
    if draft_model is None:
        level, draft = check_draft(model, model_kwargs.get("level"), draft_level)
        sizes = [model.cost(name)["parameters"] for name in (draft, level)]
        drafter = LevelPass(model, draft)
    else:
        check_draft_model(model, draft_model)
        level = model.config.level_name(model_kwargs.get("level"))
        sizes = [draft_model.num_parameters(), model.cost(level)["parameters"]]
        drafter = LevelPass(draft_model, None)
    if num_draft_tokens is not None and num_draft_tokens < 1:
        raise ValueError(f"num_draft_tokens must be at least 1, but is {num_draft_tokens}")
    for name in ("output_scores", "output_logits", "output_attentions", "output_hidden_states"):
        if getattr(generation_config, name) and generation_config.return_dict_in_generate:
            raise ValueError(f"{name} is not kept in speculative decoding; leave it or draft_level out")
    if generation_config.num_beams not in (None, 1):
        raise ValueError("draft_level needs greedy decoding or sampling; leave num_beams out")
    given = model_kwargs.get("cache")
    cache = given if isinstance(given, DynamicCache) and given.get_seq_length() else None
    mask = model_kwargs.get("attention_mask")
    real = torch.ones_like(input_ids, dtype=torch.bool) if mask is None else mask.bool()
    sample = generation_config.do_sample

    texts = Texts(input_ids, real)
    verifier = LevelPass(model, level, cache)
    positions = (real.cumsum(1) - 1).clamp_min(0)
    for one in (verifier, drafter):
        one.start(input_ids[:, :-1], positions[:, :-1], real[:, :-1])
    length = DraftLength(sizes[0] / sizes[1], num_draft_tokens)
    limit = generation_config.max_length
    missed = torch.zeros_like(texts.lengths, dtype=torch.bool)  # rows whose last draft the drafter has not read
    rows = torch.arange(len(input_ids), device=input_ids.device)
    while texts.running.any():
        room = limit - 1 - int(texts.lengths[texts.running].min())
        count = max(0, min(length(), room))
        drafted, draft_scores = _draft(drafter, texts, missed, count, logits_processor, sample)
        last, place = texts.last(1)
        ids, places = torch.cat([last, drafted], dim=1), place + torch.arange(count + 1, device=place.device)
        logits = verifier.feed(ids, places, torch.ones_like(ids, dtype=torch.bool), count + 1)
        scores = _processed(logits, texts, drafted, logits_processor)
        if sample:
            accepted, following = _sampled(scores.softmax(-1), draft_scores, drafted)
        else:
            best = scores.argmax(-1)
            accepted = (best[:, :count] == drafted).long().cumprod(1).sum(1)
            following = best[rows, accepted]
        accepted = torch.where(texts.running, accepted, 0)
        new = torch.cat([drafted, following[:, None]], dim=1)
        new[rows, accepted] = following
        length.update(accepted[texts.running], count)
        verifier.keep(accepted + 1, count + 1)
        # The drafter read the last token and all drafts but the last one.
        drafter.keep((accepted + 1).clamp_max(count), count)
        missed = (accepted == count) & texts.running
        _extend(texts, new, accepted + 1, stopping_criteria, streamer)
    if streamer is not None:
        streamer.end()
    sequences = _padded(texts, generation_config._pad_token_tensor)
    if generation_config.return_dict_in_generate:
        return GenerateDecoderOnlyOutput(sequences=sequences, cache=verifier.cache)
    return sequences


def _draft(
    drafter: LevelPass, texts: Texts, missed: torch.Tensor, count: int, processors: LogitsProcessorList, sample: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """`count` tokens that follow each text, `(batch, count)`, and what they were drawn from if they were."""
    tokens = texts.ids.new_zeros(len(texts.ids), 0)
    distributions = []
    # A row whose drafts were all accepted has one more token that the drafter has not read.
    behind = int(missed.any())
    ids, places = texts.last(1 + behind)
    real = torch.ones_like(ids, dtype=torch.bool)
    if behind:
        real[:, 0] = missed
    if not count:
        if behind:
            drafter.feed(ids[:, :1], places[:, :1], real[:, :1])
        return tokens, None
    for _ in range(count):
        scores = _processed(drafter.feed(ids, places, real), texts, tokens, processors, last=True)[:, -1]
        if sample:
            distributions.append(scores.softmax(-1))
            ids = torch.multinomial(distributions[-1], 1)
        else:
            ids = scores.argmax(-1, keepdim=True)
        places, real = places[:, -1:] + 1, torch.ones_like(ids, dtype=torch.bool)
        tokens = torch.cat([tokens, ids], dim=1)
    return tokens, torch.stack(distributions, dim=1) if sample else None


def _processed(
    logits: torch.Tensor, texts: Texts, drafted: torch.Tensor, processors: LogitsProcessorList, last: bool = False
) -> torch.Tensor:
    """Scores of the tokens after each draft (`last`: after the last one only), each row by its own text."""
    if not processors:
        return logits
    processed = logits.clone()
    for row in range(len(logits)):
        for place in range(logits.shape[1]):
            before = drafted[row] if last else drafted[row, :place]
            processed[row, place] = processors(texts.row(row, before), logits[row, place].expand(len(logits), -1))[row]
    return processed


def _sampled(
    target: torch.Tensor, draft: torch.Tensor | None, drafted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """How many drafts each row accepts, and the token after them (arXiv 2211.17192, algorithm 1)."""
    count = drafted.shape[1]
    rows = torch.arange(len(target), device=target.device)
    if not count:
        return torch.zeros_like(rows), torch.multinomial(target[:, 0], 1)[:, 0]
    wanted = target[:, :count].gather(2, drafted[..., None])[..., 0]
    found = draft.gather(2, drafted[..., None])[..., 0]
    accepted = (torch.rand_like(wanted) * found < wanted).long().cumprod(1).sum(1)
    nothing = torch.zeros_like(target[:, :1])
    rest = (target - torch.cat([draft, nothing], dim=1)).clamp_min(0)[rows, accepted]
    # Equal distributions leave nothing but rounding, and are never refused.
    rest = torch.where(rest.sum(-1, keepdim=True) > 0, rest, target[rows, accepted])
    return accepted, torch.multinomial(rest, 1)[:, 0]


def _extend(
    texts: Texts,
    tokens: torch.Tensor,
    counts: torch.Tensor,
    criteria: StoppingCriteriaList,
    streamer: BaseStreamer | None,
) -> None:
    """Adds accepted tokens, as many as come before a row stops."""
    counts = torch.where(texts.running, counts, 0)
    for row, count in enumerate(counts.tolist()):
        for number in range(1, count + 1):
            if criteria(texts.row(row, tokens[row, :number]), None)[row]:
                counts[row], texts.running[row] = number, False
                break
    texts.append(tokens, counts)
    if streamer is not None:
        streamer.put(tokens[0, : counts[0]].cpu())


def _padded(texts: Texts, pad_token: torch.Tensor | None) -> torch.Tensor:
    places = torch.arange(int(texts.lengths.max()), device=texts.ids.device)
    fill = 0 if pad_token is None else int(pad_token)
    return texts.ids[:, : len(places)].masked_fill(places >= texts.lengths[:, None], fill)


__all__ = [
    "LevelPass",
    "best_draft_length",
    "check_draft",
    "check_draft_model",
    "expected_tokens",
    "speculative_decoding",
]
