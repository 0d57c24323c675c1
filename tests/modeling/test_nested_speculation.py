"""A small level drafts, a larger one verifies: the same tokens as without drafts."""

from types import SimpleNamespace

import pytest
import torch

from hf_matryoshka.modeling.nested_speculation import (
    DraftLength,
    _sampled,
    best_draft_length,
    expected_tokens,
)
from hf_matryoshka.modeling.onednn_layers import with_onednn_linears

from .gpt_models import make, prompts


NEW = 30


class Passes:
    """Counts the passes of each level."""

    def __init__(self, model):
        self.counts, self.tokens = {}, {}
        model.model.register_forward_pre_hook(self.look, with_kwargs=True)

    def look(self, module, args, kwargs):
        level = kwargs["level"]
        self.counts[level] = self.counts.get(level, 0) + 1
        self.tokens[level] = self.tokens.get(level, 0) + kwargs["input_ids"].shape[1]


def similar():
    """A model whose smaller levels agree with it on most tokens, as trained ones do: its later layers add little."""
    model = make("head_dim", tie_word_embeddings=False, doll_sizes=[64, 64, 64], doll_layers=[1, 2, 3])
    with torch.no_grad():
        for layer in model.model.layers[1:]:
            layer.self_attn.o_proj.weight.mul_(0.1)
            layer.mlp.down_proj.weight.mul_(0.1)
    return model


@pytest.mark.parametrize("kind", ["head_dim", "heads", "layers", "output", "depth"])
@pytest.mark.parametrize("tokens", [None, 1, 4])
def test_the_text_is_that_of_plain_decoding(kind, tokens):
    model = make(kind)
    ids, mask = prompts()
    for batch in (slice(1, 2), slice(None)):
        inputs = {"inputs": ids[batch], "attention_mask": mask[batch], "max_new_tokens": NEW}
        plain = model.generate(**inputs)
        assert torch.equal(plain, model.generate(**inputs, draft_level=0, num_draft_tokens=tokens))


@pytest.mark.parametrize("tokens", [None, 4])
def test_a_batch_of_unequal_acceptance_and_early_ends(tokens):
    model = similar()
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 100, (4, 12), generator=generator)
    ids[0, :5] = 0
    plain = model.generate(ids, attention_mask=(ids != 0).long(), max_new_tokens=NEW)
    # A token that some rows come to early, others late or never.
    counts = (plain[:, 12:, None] == torch.arange(100)).any(1).sum(0)
    end = int((counts * (counts < 4)).argmax())
    for options in (
        {"eos_token_id": end},
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 3, "min_new_tokens": 20, "eos_token_id": end},
    ):
        inputs = {"inputs": ids, "attention_mask": (ids != 0).long(), "max_new_tokens": NEW, **options}
        expected = model.generate(**inputs)
        assert torch.equal(expected, model.generate(**inputs, draft_level="d64-l2", num_draft_tokens=tokens))


def test_fewer_passes_and_no_token_twice():
    model = similar()
    ids = prompts()[0][1:]
    plain = model.generate(ids, max_new_tokens=NEW)
    passes = Passes(model)
    drafted = model.generate(ids, max_new_tokens=NEW, draft_level="d64-l2", num_draft_tokens=4)
    assert torch.equal(plain, drafted)
    # All but the last prompt token, then a round of five tokens: a token that is accepted is never read again.
    rounds = passes.counts["d64-l3"] - 1
    assert rounds < NEW / 2
    assert passes.tokens["d64-l3"] <= ids.shape[1] - 1 + 5 * rounds
    # What was read and kept is each token once: the cache is as long as the text but for its last token.
    out = model.generate(
        ids, max_new_tokens=NEW, draft_level="d64-l2", num_draft_tokens=4, return_dict_in_generate=True
    )
    assert out.cache.get_seq_length() <= out.sequences.shape[1] + 4


def test_a_level_between_verifies_and_a_cache_is_continued():
    model = similar()
    ids = prompts()[0][1:]
    plain = model.generate(ids, max_new_tokens=NEW, level="d64-l2")
    assert torch.equal(plain, model.generate(ids, max_new_tokens=NEW, level="d64-l2", draft_level="d64-l1"))
    cache = model(ids, use_cache=True).cache
    longer = torch.cat([ids, torch.tensor([[5, 6, 7]])], dim=1)
    expected = model.generate(longer, max_new_tokens=8)
    assert torch.equal(expected, model.generate(longer, max_new_tokens=8, cache=cache, draft_level="d64-l1"))


@pytest.mark.parametrize("tokens", [None, 3])
def test_another_model_drafts_also_for_batches(tokens):
    model = similar()
    ids, mask = prompts()
    inputs = {"inputs": ids, "attention_mask": mask, "max_new_tokens": NEW}
    plain = model.generate(**inputs)
    for draft in (model.to_stock("d64-l2"), model.doll("d64-l1"), make("heads")):
        assert torch.equal(plain, model.generate(**inputs, draft_model=draft, num_draft_tokens=tokens))
    # A copy with other linear layers has one level, for which a doll drafts.
    copied = with_onednn_linears(model, "d64-l3")
    expected = copied.generate(**inputs)
    drafted = copied.generate(**inputs, draft_model=model.doll("d64-l2"), num_draft_tokens=tokens)
    assert torch.equal(expected, drafted)
    middle = model.generate(**inputs, level="d64-l2")
    assert torch.equal(middle, model.generate(**inputs, level="d64-l2", draft_model=model.doll("d64-l1")))


def test_one_prompt_token_and_one_new_token():
    model = make()
    ids = torch.tensor([[7]])
    for count in (1, 2, 3):
        plain = model.generate(ids, max_new_tokens=count)
        assert torch.equal(plain, model.generate(ids, max_new_tokens=count, draft_level=0))


def test_what_is_sampled_has_the_distribution_of_the_verifier():
    torch.manual_seed(0)
    target = torch.tensor([0.5, 0.3, 0.2, 0.0])
    draft = torch.tensor([0.1, 0.2, 0.3, 0.4])
    many = 40_000
    drafted = torch.multinomial(draft.expand(many, -1), 1)
    accepted, following = _sampled(target.expand(many, 2, -1), draft.expand(many, 1, -1), drafted)
    first = torch.where(accepted == 1, drafted[:, 0], following)
    torch.testing.assert_close(torch.bincount(first, minlength=4) / many, target, atol=0.012, rtol=0)
    # After an accepted draft comes one from the verifier's next distribution.
    second = following[accepted == 1]
    torch.testing.assert_close(torch.bincount(second, minlength=4) / len(second), target, atol=0.02, rtol=0)
    share = float((accepted == 1).float().mean())
    assert abs(share - float(torch.minimum(target, draft).sum())) < 0.012


def test_sampling_follows_temperature_and_top_k():
    model = similar()
    ids = prompts()[0][1:].expand(400, -1)
    torch.manual_seed(1)
    options = {"max_new_tokens": 2, "do_sample": True, "top_k": 5, "temperature": 2.0}
    plain = model.generate(ids, **options)[:, -2:]
    drafted = model.generate(ids, **options, draft_level="d64-l2", num_draft_tokens=2)[:, -2:]
    for place in range(2):
        first, second = (torch.bincount(found[:, place], minlength=100) / 400 for found in (plain, drafted))
        assert (first - second).abs().sum() / 2 < 0.15


def test_the_length_of_drafts_follows_what_is_accepted():
    assert expected_tokens(0.0, 4) == 1 and expected_tokens(1.0, 4) == 5
    assert expected_tokens(0.5, 1) == pytest.approx(1.5)
    assert best_draft_length(0.05, 0.3) == 1 and best_draft_length(0.95, 0.05) == 8
    length = DraftLength(0.25)
    for _ in range(20):
        length.update(torch.tensor([0]), 2)
    assert length() == 1
    for _ in range(40):
        length.update(torch.tensor([4]), 4)
    assert length() > 4
    assert DraftLength(0.25, 3)() == 3


def test_a_streamer_gets_every_token_once():
    model = similar()
    ids, seen = prompts()[0][1:], []
    streamer = SimpleNamespace(put=lambda part: seen.extend(part.flatten().tolist()), end=lambda: seen.append("end"))
    out = model.generate(ids, max_new_tokens=9, draft_level="d64-l2", streamer=streamer)
    assert seen == [*out[0].tolist(), "end"]


def test_bad_input_is_refused():
    model = make()
    ids = prompts()[0][1:]
    with pytest.raises(ValueError, match="draft_level d64 is not smaller than d64, which verifies; smaller levels"):
        model.generate(ids, draft_level="d64")
    with pytest.raises(ValueError, match="smaller levels are none: it is the smallest"):
        model.generate(ids, level="d16", draft_level="d16")
    with pytest.raises(ValueError, match="level 'd8' does not exist"):
        model.generate(ids, draft_level="d8")
    with pytest.raises(ValueError, match="num_draft_tokens needs draft_level"):
        model.generate(ids, num_draft_tokens=3)
    with pytest.raises(ValueError, match="num_draft_tokens must be at least 1, but is 0"):
        model.generate(ids, draft_level=0, max_new_tokens=2, num_draft_tokens=0)
    with pytest.raises(ValueError, match="draft_level and assistant_model are two ways to draft"):
        model.generate(ids, draft_level=0, assistant_model=model.doll(0))
    with pytest.raises(ValueError, match="draft_level and draft_model are two ways to draft"):
        model.generate(ids, draft_level=0, draft_model=model.doll(0))
    with pytest.raises(ValueError, match="draft_model has 90 tokens and the model 100; give one of the same vocab"):
        model.generate(ids, draft_model=make(vocab_size=90))
    with pytest.raises(ValueError, match="leave num_beams out"):
        model.generate(ids, draft_level=0, max_new_tokens=2, num_beams=2)
    with pytest.raises(ValueError, match="output_scores is not kept"):
        model.generate(ids, draft_level=0, max_new_tokens=2, return_dict_in_generate=True, output_scores=True)
