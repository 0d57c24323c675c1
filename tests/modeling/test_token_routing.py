"""Routing tokens: each runs at the size of the level or at the smallest one."""

import pytest
import torch

from hf_matryoshka.modeling.token_routing import TokenRouting

from .delta_models import HEADS, inputs, make, outputs


CHAIN = [[0.25, 1, 2], [0.5, 3, 4], [1.0, 4, 5]]
ENCODERS = ["DeltaBertModel", "DeltaModernBertModel"]


def routed(model, share, level=None, **options):
    """The output at real tokens, and what was noted."""
    routing = TokenRouting(share)
    given = inputs() | options
    with torch.no_grad():
        output = model(**given, level=level, routing=routing)[0]
    return (output[given["attention_mask"].bool()] if output.ndim == 3 else output), routing


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", HEADS)
def test_all_tokens_are_the_model_without_routing(name, attention):
    model = make(name, CHAIN, token_routing=True, attn_implementation=attention)
    for level in model.config.levels:
        found, _ = routed(model, 1.0, level)
        assert torch.equal(found, outputs(model, level))
        # Nearly all are, where every text has fewer tokens than 1 / (1 - share): rounded up, all.
        nearly, routing = routed(model, 0.99, level)
        assert (nearly - found).abs().max() <= 1e-5
        assert all(share == 1 for share in routing.shares)
    # At the smallest level there is nothing to route.
    found, routing = routed(model, 0.5, 0)
    assert torch.equal(found, outputs(model, 0)) and not routing.shares


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ENCODERS)
def test_gathered_tokens_are_those_of_the_dense_computation(name, attention):
    """In training both sizes run on all tokens; otherwise each token runs at one."""
    fields = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0) if "DeltaBert" in name else {}
    model = make(name, CHAIN, token_routing=True, attn_implementation=attention, **fields)
    for share in (0.1, 0.5, 0.8):
        found, gathered = routed(model, share)
        dense, noted = routed(model.train(), share)
        model.eval()
        assert (found - dense).abs().max() <= 1e-5
        assert gathered.shares == noted.shares and len(noted.preview_losses) == len(noted.shares) == 5
        # Rounded up in texts of 12 and of 8 tokens.
        counts = torch.ceil(share * torch.tensor([12.0, 8.0]))
        assert all(kept == pytest.approx(counts.sum().item() / 20) for kept in noted.shares)
        assert (found - outputs(model)).abs().max() > 1e-3


@pytest.mark.parametrize("name", ENCODERS)
def test_a_token_runs_at_one_of_two_sizes(name):
    # One layer, so that what each token gets can be said: with the keys and values of all tokens.
    model = make(name, [[0.25, 1, 1], [1.0, 4, 1]], num_hidden_layers=1, token_routing=True)
    if "Modern" in name:
        model.final_norm = torch.nn.LayerNorm(32, elementwise_affine=False)
        model.final_norm.forward = lambda states, level: states
    found, routing = routed(model, 0.5)
    large, small = outputs(model), outputs(model, 0)
    is_large, is_small = ((found - other).abs().amax(-1) <= 1e-5 for other in (large, small))
    assert (is_large ^ is_small).all()
    # Half of 12 and half of 8.
    assert is_large[:12].sum() == 6 and is_large[12:].sum() == 4


@pytest.mark.parametrize("name", ENCODERS)
def test_tokens_pass_by_layers_that_the_smallest_level_does_not_have(name):
    model = make(name, [[1.0, 4, 1], [1.0, 4, 2]], num_hidden_layers=2, token_routing=True)
    first = model(**inputs(), level=0, output_hidden_states=True).hidden_states[1]
    states = model(**inputs(), routing=TokenRouting(0.25), output_hidden_states=True).hidden_states[-1]
    same = (states - first).abs().amax(-1)[inputs()["attention_mask"].bool()] <= 1e-6
    assert same.sum() == 20 - 3 - 2


@pytest.mark.parametrize("name", ENCODERS)
def test_padding_does_not_change_what_is_chosen(name):
    model = make(name, CHAIN, token_routing=True)
    text = inputs()["input_ids"][1:, :8]
    alone = model(input_ids=text, attention_mask=torch.ones_like(text), routing=TokenRouting(0.5))[0]
    batch, _ = routed(model, 0.5)
    torch.testing.assert_close(batch[12:], alone[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_preview_learns_the_size_of_the_delta(name):
    model = make(name, CHAIN, token_routing=True).train()
    routing = TokenRouting(0.5)
    model(**inputs(), routing=routing)
    routing.preview_loss().backward()
    # The predictions do not pull at what they predict.
    assert {key.split(".preview.")[0] for key, value in model.named_parameters() if value.grad is not None} == {
        key.split(".preview.")[0] for key, _ in model.named_parameters() if ".preview." in key
    }
    optimizer = torch.optim.Adam([value for key, value in model.named_parameters() if ".preview." in key], lr=0.05)
    losses = []
    model.eval()
    for module in model.modules():
        module.training = hasattr(module, "preview")
    for _ in range(40):
        routing = TokenRouting(0.5)
        model(**inputs(), routing=routing)
        losses.append(routing.preview_loss().item())
        optimizer.zero_grad()
        routing.preview_loss().backward()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]
    assert all(share.requires_grad and 0 < share < 1 for share in routing.soft_shares)


@pytest.mark.parametrize("name", HEADS)
def test_previews_are_cut_saved_and_left_out_of_stock_models(name, tmp_path):
    model = make(name, CHAIN, token_routing=True)
    small = model.cut(1)
    found, _ = routed(small, 0.5)
    expected, _ = routed(model, 0.5, 1)
    assert (found - expected).abs().max() <= 1e-5
    assert model.cost(1) == make(name, CHAIN).cost(1)
    assert not any("preview" in key for key in model.to_stock(2).state_dict())
    model.save_pretrained(tmp_path)
    again, _ = routed(type(model).from_pretrained(tmp_path), 0.5)
    torch.testing.assert_close(again, routed(model, 0.5)[0])


def test_what_cannot_be_routed_is_refused():
    model = make("DeltaBertModel", CHAIN)
    with pytest.raises(ValueError, match=r"routing needs a model with config.token_routing=True"):
        routed(model, 0.5)
    model = make("DeltaModernBertModel", CHAIN, token_routing=True)
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(ValueError, match="routing works with the attention eager and sdpa, but the model has flex"):
        routed(model, 0.5)
    for options, message in (({"share": 0}, "share must be above 0"), ({"temperature": 0.0}, "temperature must be")):
        with pytest.raises(ValueError, match=message):
            TokenRouting(**options)
    with pytest.raises(ValueError, match="no layer was routed in training"):
        TokenRouting(0.5).preview_loss()
    with pytest.raises(Exception, match="preview_rank must be at least 1, but is 0"):
        make("DeltaBertModel", CHAIN, preview_rank=0)
