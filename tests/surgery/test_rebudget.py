"""Other budgets of the same weights."""

import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import BertConfig, BertModel

from hf_matryoshka import with_budgets

from ..modeling.delta_models import HEADS, make, outputs


BUDGETS = [[0.25, 4, 2], [0.5, 4, 3], [1.0, 4, 5]]
MORE = [[0.25, 4, 2], [0.375, 4, 2], [0.5, 4, 3], [0.75, 4, 5], [1.0, 4, 5]]


@pytest.mark.parametrize("name", HEADS)
def test_levels_that_stay_compute_the_same_and_new_ones_are_their_slices(name):
    model = make(name, BUDGETS, budget_norms=True, delta_gates=True)
    more = with_budgets(model, MORE)
    assert len(more.config.levels) == 5 and model.config.levels == ("w0.25-h4-d2", "w0.5-h4-d3", "w1.0-h4-d5")
    for level in model.config.levels:
        assert torch.equal(outputs(more, level), outputs(model, level))
    plain = make(name, BUDGETS)
    same = make(name, MORE)
    same.load_state_dict(plain.state_dict())
    for level in same.config.levels:
        assert torch.equal(outputs(with_budgets(plain, MORE), level), outputs(same, level))


@pytest.mark.parametrize("name", ["DeltaBertModel", "DeltaModernBertModel"])
def test_gains_of_a_new_budget_are_between_those_of_its_neighbours(name):
    model = make(name, [[0.25, 4, 5], [0.5, 4, 5], [1.0, 4, 5]], budget_norms=True)
    more = with_budgets(model, [[0.125, 4, 5], [0.25, 4, 5], [0.5, 4, 5], [0.75, 4, 5], [1.0, 4, 5]])
    low, middle, high = (math.log(more.cost(level)["macs"]) for level in (2, 3, 4))
    share = (middle - low) / (high - low)
    tables = dict(more.named_parameters())
    checked = 0
    for key, table in model.named_parameters():
        if "level_" in key:
            checked += 1
            torch.testing.assert_close(tables[key][3], (1 - share) * table[1] + share * table[2])
            assert torch.equal(tables[key][0], table[0])
    assert checked > 5 and 0.3 < share < 0.7


def test_what_has_no_such_budgets_is_refused():
    with pytest.raises((ValueError, StrictDataclassClassValidationError), match="is not inside the last one"):
        with_budgets(make("DeltaBertModel", BUDGETS), [[0.5, 9, 2], [1.0, 4, 5]])
    with pytest.raises(ValueError, match="beyond its smallest budget w0.25-h4-d2; keep that one first"):
        with_budgets(make("DeltaBertModel", BUDGETS, delta_gates=True), BUDGETS[1:])
    small = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    with pytest.raises(ValueError, match="BertModel has no budgets; give a Delta encoder"):
        with_budgets(BertModel(small), BUDGETS)
