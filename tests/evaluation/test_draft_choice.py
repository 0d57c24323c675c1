"""Which level drafts, from what is measured."""

import pytest
import torch

from hf_matryoshka.evaluation import draft_choice as module
from hf_matryoshka.evaluation.draft_choice import choose_draft
from hf_matryoshka.modeling.nested_speculation import expected_tokens

from ..modeling.gpt_models import make


PROMPTS = torch.randint(3, 100, (3, 5), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def times(monkeypatch):
    """A pass of so many tokens of a level takes what the test says."""
    found = {}

    def set_times(**values):
        found.update(values)
        monkeypatch.setattr(module, "_milliseconds", lambda model, texts, level, tokens, repeats: found[f"l{level}"])

    return set_times


def model():
    """Its middle level is the same as its largest, the smallest is not."""
    found = make("head_dim", tie_word_embeddings=False, doll_sizes=[64, 64, 64], doll_layers=[1, 2, 3])
    with torch.no_grad():
        found.model.layers[2].self_attn.o_proj.weight.zero_()
        found.model.layers[2].mlp.down_proj.weight.zero_()
    return found


def test_acceptance_is_agreement_on_what_the_verifier_writes(times):
    times(l0=1.0, l1=2.0, l2=10.0)
    one = model()
    choice = choose_draft(one, PROMPTS, lengths=(2, 4), max_new_tokens=9)
    rows = {(row["draft_level"], row["num_draft_tokens"]): row for row in choice.rows}
    assert rows["d64-l2", 4]["acceptance"] == 1 and rows["d64-l2", 4]["tokens_per_pass"] == 5
    assert rows["d64-l2", 4]["speedup"] == pytest.approx(5 * 10 / (4 * 2 + 10))
    share, texts = rows["d64-l1", 2]["acceptance"], one.generate(PROMPTS, max_new_tokens=9)
    guesses = one(texts, level=0).logits[:, 4:-1].argmax(-1)
    assert share == pytest.approx((guesses == texts[:, 5:]).float().mean().item()) and share < 1
    assert rows["d64-l1", 2]["speedup"] == pytest.approx(expected_tokens(share, 2) * 10 / (2 * 1 + 10))
    assert choice.options == {"draft_level": "d64-l2", "num_draft_tokens": 4}
    assert torch.equal(one.generate(PROMPTS, max_new_tokens=9, **choice.options), texts)


def test_a_draft_that_costs_too_much_is_not_chosen(times):
    times(l0=20.0, l1=20.0, l2=10.0)
    choice = choose_draft(model(), PROMPTS, lengths=(2, 4), max_new_tokens=9)
    assert choice.draft_level is None and choice.options == {}


def test_real_times_are_positive_and_bad_input_is_refused():
    choice = choose_draft(model(), PROMPTS, level="d64-l2", lengths=(1,), max_new_tokens=9, repeats=2)
    assert [row["draft_level"] for row in choice.rows] == ["d64-l1"]
    assert choice.rows[0]["draft_ms"] > 0 and choice.rows[0]["verify_ms"] > 0
    with pytest.raises(ValueError, match="level d64-l1 is the smallest, so nothing can draft"):
        choose_draft(model(), PROMPTS, level=0)
    with pytest.raises(ValueError, match="must be at least 1"):
        choose_draft(model(), PROMPTS, lengths=(0,))
