import pytest
import torch

from hf_matryoshka.modeling.mamba_streaming import MambaState

from .mamba_models import make, padded, tokens


@pytest.fixture(scope="module", params=["causal", "block_bidirectional"])
def model(request):
    return make(direction=request.param)


def whole(model, ids, **options):
    with torch.no_grad():
        return model(ids, **options).embeddings


@pytest.mark.parametrize("cuts", [[45], [1] * 45, [20, 25], [3, 40, 2], [8, 8, 29]])
@pytest.mark.parametrize("level", [None, "w0.25"])
def test_a_text_can_come_in_parts(model, cuts, level):
    state, ids = model.new_state(3, level), tokens()
    for part in ids.split(cuts, dim=1):
        state = model.update(state, part)
    assert state.lengths.tolist() == [45] * 3
    for dim in (8, 48):
        torch.testing.assert_close(
            model.embed(state, dim), whole(model, ids, level=level, matryoshka_dim=dim), atol=1e-6, rtol=0
        )


def test_texts_of_a_batch_grow_at_their_own_pace(model):
    ids, state, at = tokens(), model.new_state(3), [0, 0, 0]
    for number, counts in enumerate([(5, 0, 17), (10, 20, 1), (0, 7, 20)]):
        rows = [row[start : start + count] for row, start, count in zip(ids, at, counts, strict=True)]
        at = [start + count for start, count in zip(at, counts, strict=True)]
        state = model.update(state, *padded(rows, 22, left=number == 1))
        expected = torch.cat(
            [
                whole(model, row[None, :count]) if count else torch.zeros(1, 48)
                for row, count in zip(ids, at, strict=True)
            ]
        )
        torch.testing.assert_close(model.embed(state), expected, atol=1e-6, rtol=0)


def test_a_state_is_kept_in_a_file_and_goes_on_in_several_ways(model, tmp_path):
    ids = tokens(1)
    state = model.update(model.new_state(), ids[:, :21])
    before = model.embed(state)
    state.save(tmp_path / "state.safetensors")
    loaded = MambaState.load(tmp_path / "state.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]
    assert loaded.nbytes == state.nbytes and torch.equal(model.embed(loaded), before)
    longer = model.update(loaded, ids[:, 21:])
    torch.testing.assert_close(model.embed(longer), whole(model, ids), atol=1e-6, rtol=0)
    # The earlier state is as it was.
    assert torch.equal(model.embed(loaded), before)
    torch.testing.assert_close(
        model.embed(model.update(loaded, ids[:, :5])),
        whole(model, torch.cat((ids[:, :21], ids[:, :5]), 1)),
        atol=1e-6,
        rtol=0,
    )


def test_a_state_does_not_grow_with_the_text(model):
    state = model.new_state(3)
    sizes = {model.update(state, tokens(3, length)).nbytes for length in (16, 32, 48)}
    assert len(sizes) == 1


def test_what_does_not_belong_together_is_refused(model, tmp_path):
    state = model.update(model.new_state(2), tokens(2))
    with pytest.raises(ValueError, match=r"the state is that of 2 texts, but input_ids have the shape \(3, 45\)"):
        model.update(state, tokens(3))
    with pytest.raises(ValueError, match="matryoshka_dim 9 was not trained"):
        model.embed(state, 9)
    other = make(direction=model.config.direction)
    with torch.no_grad():
        other.norm.weight.mul_(2)
    for call in (lambda: other.embed(state), lambda: other.update(state, tokens(2))):
        with pytest.raises(ValueError, match="the state is that of another model"):
            call()
    with pytest.raises(ValueError, match="a bidirectional model sees a text from its end"):
        make(direction="bidirectional").new_state()
    with pytest.raises(FileNotFoundError, match="give a file that MambaState.save wrote"):
        MambaState.load(tmp_path / "none")
    (tmp_path / "other").write_bytes(b"something else")
    with pytest.raises(ValueError, match="is no file that MambaState.save wrote"):
        MambaState.load(tmp_path / "other")
