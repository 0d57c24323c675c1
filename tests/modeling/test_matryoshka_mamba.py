import pytest
import torch
from torch.nn import functional as F

from hf_matryoshka.modeling import MatryoshkaMambaConfig, MatryoshkaMambaModel

from .mamba_models import make, padded, tokens


DIRECTIONS = ["causal", "bidirectional", "block_bidirectional"]
LENGTHS = [45, 20, 7]


@pytest.fixture(scope="module", params=DIRECTIONS)
def model(request):
    return make(direction=request.param)


@pytest.fixture
def rows():
    return [row[:length] for row, length in zip(tokens(), LENGTHS, strict=True)]


@pytest.fixture
def single(model, rows):
    """Each text by itself, whole."""
    return torch.cat([model(row[None]).embeddings for row in rows]).detach()


def close(actual, expected, atol=1e-6):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("segmented", [False, True])
def test_padding_and_segments_change_nothing(model, rows, single, left, segmented):
    ids, mask = padded(rows, 50, left)
    # Without gradients a text longer than segment_length goes through in parts.
    with torch.set_grad_enabled(not segmented):
        output = model(ids, mask)
        close(output.embeddings, single)
        assert model(ids, mask, return_tokens=False).last_hidden_state is None
        close(model(ids, mask, return_tokens=False).embeddings, single)
    for number, row in enumerate(rows):
        states = output.last_hidden_state[number][mask[number].bool()]
        close(states, model(row[None]).last_hidden_state[0], atol=5e-6)


def test_long_texts_are_cut_into_segments_only_where_that_is_exact(model, monkeypatch):
    lengths, run = [], MatryoshkaMambaModel._run

    def watch(self, input_ids, *args):
        lengths.append(input_ids.shape[1])
        return run(self, input_ids, *args)

    monkeypatch.setattr(MatryoshkaMambaModel, "_run", watch)
    with torch.no_grad():
        model(tokens())
    assert lengths == ([45] if model.config.direction == "bidirectional" else [16, 16, 13])


def test_packed_texts_do_not_see_each_other(model, rows, single):
    packed = torch.cat(rows)
    segments = torch.repeat_interleave(torch.arange(3), torch.tensor(LENGTHS))
    ids, mask = padded([packed, packed.flip(0)], 80)
    segment_ids, _ = padded([segments, segments], 80)
    segment_ids[:, 72:] = -1
    output = model(ids, mask, segment_ids)
    assert output.embeddings.shape == (6, 48)
    close(output.embeddings[:3], single)
    assert not torch.allclose(output.embeddings[3:], single, atol=1e-2)
    # Padding before the texts, whatever number it has.
    ids, mask = padded([packed, packed.flip(0)], 80, left=True)
    segment_ids, _ = padded([segments, segments], 80, left=True)
    left = model(ids, mask, segment_ids).embeddings
    close(left[:3], single)
    close(left, output.embeddings)


def test_levels_are_cut_bit_for_bit(model):
    assert model.config.levels == ("w0.25", "w0.5", "w1.0")
    embeddings = {}
    for level in model.config.levels:
        small = model.cut(level)
        embeddings[level] = model(tokens(), level=level).embeddings
        assert torch.equal(small(tokens()).embeddings, embeddings[level])
        assert small.cost() == model.cost(level) and small.config.levels[-1] == level
        assert small.config.num_heads == {"w0.25": 2, "w0.5": 4, "w1.0": 8}[level]
        assert all(parameter.is_contiguous() for parameter in small.parameters())
    assert not torch.allclose(embeddings["w0.5"], embeddings["w1.0"], atol=1e-2)
    assert model.cost("w0.25")["parameters"] < model.cost("w1.0")["parameters"]
    assert model.cost(None, 8)["macs"] < model.cost()["macs"]


def test_a_small_embedding_is_the_beginning_of_a_large_one(model):
    output = model(tokens()).embeddings
    every = model.embed_all(tokens())
    assert list(every) == [8, 16, 48] and torch.allclose(output.norm(dim=1), torch.ones(3))
    for dim, embeddings in every.items():
        asked = model(tokens(), matryoshka_dim=dim).embeddings
        assert asked.shape == (3, dim)
        close(asked, F.normalize(output[:, :dim], dim=-1), atol=2e-7)
        close(asked, embeddings, atol=2e-7)
    # Before it has unit length, the band is the same bit for bit.
    hidden = model(tokens()).last_hidden_state
    bands = [model.head(model.head.pooling(hidden, None, count)) for count in (1, 3)]
    assert torch.equal(bands[0], bands[1][:, :8])


def test_a_dimension_can_have_a_width_of_its_own():
    model = make(dim_widths=[0.25, 0.5, 1.0])
    for dim, level in ((8, "w0.25"), (16, "w0.5"), (None, "w1.0")):
        asked = model(tokens(), matryoshka_dim=dim).embeddings
        assert torch.equal(asked, model(tokens(), matryoshka_dim=dim, level=level).embeddings)
    close(model.embed_all(tokens())[16], model(tokens(), matryoshka_dim=16).embeddings, atol=2e-7)
    assert model.cut("w0.5").config.level_of_dim(48) == "w0.5"


def test_directions_see_what_they_say():
    ids, changed = tokens(1), tokens(1)
    changed[0, 30] = (changed[0, 30] + 1) % 99 + 1
    for direction, first in (("causal", 30), ("block_bidirectional", 24), ("bidirectional", 0)):
        model = make(direction=direction)
        difference = (model(ids).last_hidden_state - model(changed).last_hidden_state).abs().amax(-1)[0]
        seen = difference > 1e-7
        assert seen[30] and not seen[:first].any()
        assert seen[first:30].any() == (direction != "causal")


def test_stock_mamba_computes_the_same():
    model = make(intermediate_size=0)
    stock = model.to_stock()
    assert type(stock).__name__ == "Mamba2Model"
    close(stock(tokens()).last_hidden_state, model(tokens()).last_hidden_state, atol=1e-5)
    for options, level, message in (
        ({"intermediate_size": 0}, "w0.5", "level w0.5 has 32 channels, but those of a Mamba2Model are a multiple"),
        ({"direction": "bidirectional", "intermediate_size": 0}, None, "causal, but this model is bidirectional"),
        ({}, None, "no feed-forward networks"),
    ):
        with pytest.raises(ValueError, match=message):
            make(**options).to_stock(level)


def test_all_weights_learn_and_dropout_is_off_in_evaluation(model):
    model = MatryoshkaMambaModel(model.config)
    # The mean of the tokens is where the pooling starts.
    model.eval()
    output = model(tokens())
    mean = F.linear(output.last_hidden_state.mean(1), model.head.projections[0].weight)
    close(model(tokens(), matryoshka_dim=8).embeddings, F.normalize(mean, dim=-1))
    assert torch.equal(model(tokens()).embeddings, model(tokens()).embeddings)
    model.train()
    assert not torch.equal(model(tokens()).embeddings, model(tokens()).embeddings)
    model(tokens()).embeddings[:, 0].sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    model.activation_checkpointing_enable()
    model(tokens()).embeddings.sum().backward()


def test_half_precision_is_near(model):
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(tokens()).embeddings
    assert F.cosine_similarity(found, model(tokens()).embeddings).min() > 0.99


def test_a_text_without_tokens_is_zero(model):
    ids, mask = padded([tokens()[0], tokens()[0][:0]], 50)
    embeddings = model(ids, mask).embeddings
    assert embeddings[1].eq(0).all() and torch.isfinite(embeddings).all()


def test_bad_input_is_one_sentence(model):
    with pytest.raises(ValueError, match="matryoshka_dim 10 was not trained; choose one of 8, 16, 48"):
        model(tokens(), matryoshka_dim=10)
    with pytest.raises(ValueError, match="level 'w0.1' does not exist; choose one of w0.25, w0.5, w1.0"):
        model(tokens(), level="w0.1")
    with pytest.raises(ValueError, match="at least one token a row, but have \\(2, 0\\)"):
        model(torch.zeros(2, 0, dtype=torch.long))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": [0.3, 1.0]}, "width 0.3 is 2.4 of 8 heads; give shares up to 1 of whole heads"),
        ({"widths": [0.5]}, "the last of widths must be the full size"),
        ({"widths": [1.0, 0.5]}, "widths must be strictly increasing"),
        ({"matryoshka_dims": [8, 8]}, "strictly increasing"),
        ({"direction": "both"}, "direction 'both' does not exist; choose one of causal, bidirectional, block"),
        ({"direction": "block_bidirectional", "block_size": 5}, "must be a multiple of block_size 5"),
        ({"dim_widths": [1.0]}, "dim_widths has 1 widths for 3 matryoshka_dims"),
        ({"state_size": 0}, "state_size must be at least 1"),
    ],
)
def test_bad_configs_are_refused(options, message):
    from huggingface_hub.errors import StrictDataclassError

    with pytest.raises((ValueError, StrictDataclassError), match=message):
        make(**options)


def test_defaults():
    config = MatryoshkaMambaConfig()
    assert config.levels == ("w0.0833", "w0.25", "w0.5", "w1.0") and config.num_heads == 12
    assert config.level_sizes("w0.0833") == (1, 64) and config.intermediate_size == 768
    assert config.matryoshka_dims == [64, 128, 256, 512, 768, 1024, 1536]
    assert config.bands == [64, 64, 128, 256, 256, 256, 512]
