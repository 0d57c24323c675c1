"""Packed documents never see each other: each comes out as if it were alone."""

import pytest
import torch
from transformers import AttentionInterface, BertConfig, BertModel, ModernBertConfig, ModernBertModel

from hf_matryoshka.data.packing_masks import (
    add_packed_mask,
    flash_attention_inputs,
    packed_attention_mask,
    packed_position_ids,
    segment_ids,
)


LENGTHS = [[20, 7, 37], [5, 40]]
LENGTH = 64
SHAPE = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4}
SHAPE |= {"num_attention_heads": 2, "pad_token_id": 0}


def bert():
    # Ten times BERT's own range: otherwise a leak would hardly show.
    return BertModel(BertConfig(**SHAPE, max_position_embeddings=48, initializer_range=0.3))


def modernbert():
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1)
    windows = {"local_attention": 8, "global_attn_every_n_layers": 2, "initializer_range": 0.3}
    return ModernBertModel(ModernBertConfig(**SHAPE, **special, **windows))


@pytest.fixture(params=[bert, modernbert], ids=["bert", "modernbert"])
def model(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return request.param().eval()


@pytest.fixture
def input_ids():
    return torch.randint(2, 100, (2, LENGTH), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def difference_to_alone(model, input_ids, hidden):
    """Largest difference of a packed document to the same document without neighbours."""
    worst = 0.0
    for row, lengths in enumerate(LENGTHS):
        for start, length in zip([0, *torch.tensor(lengths).cumsum(0).tolist()], lengths, strict=False):
            alone = model(input_ids[row : row + 1, start : start + length]).last_hidden_state[0]
            worst = max(worst, (hidden[row, start : start + length] - alone).abs().max().item())
    return worst


@pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning")  # transformers sets it
@pytest.mark.parametrize("implementation", ["eager", "sdpa", "flex_attention"])
def test_packed_documents_do_not_see_each_other(model, input_ids, implementation):
    model.set_attn_implementation(implementation)
    positions = packed_position_ids(LENGTHS, LENGTH)
    inputs = {"input_ids": input_ids, "position_ids": positions, "segment_ids": segment_ids(LENGTHS, LENGTH)}
    # Flex attention is compiled otherwise, which takes a C++ compiler and half a minute.
    with torch.compiler.set_stance("force_eager"):
        hidden = model(**add_packed_mask(inputs, model.config)).last_hidden_state
        assert hidden.isfinite().all()
        model.set_attn_implementation("eager")
        assert difference_to_alone(model, input_ids, hidden) <= 1e-5


def test_rotary_positions_may_run_on(input_ids):
    model = modernbert().eval()
    mask = packed_attention_mask(model.config, segment_ids(LENGTHS, LENGTH))
    hidden = model(input_ids, attention_mask=mask).last_hidden_state
    assert difference_to_alone(model, input_ids, hidden) <= 1e-5


def test_stock_models_leak_without_the_mask(model, input_ids):
    positions = packed_position_ids(LENGTHS, LENGTH)
    hidden = model(input_ids, position_ids=positions).last_hidden_state
    assert difference_to_alone(model, input_ids, hidden) > 1e-2


def test_learned_positions_that_run_on_are_wrong(input_ids):
    config = BertConfig(**SHAPE, max_position_embeddings=LENGTH, initializer_range=0.3)
    model = BertModel(config).eval()
    mask = packed_attention_mask(config, segment_ids(LENGTHS, LENGTH))
    hidden = model(input_ids, attention_mask=mask).last_hidden_state
    assert difference_to_alone(model, input_ids, hidden) > 1e-2


def test_one_mask_for_all_layers_would_lose_the_window(input_ids):
    """Why a model with sliding layers gets two masks."""
    model = modernbert().eval()
    masks = packed_attention_mask(model.config, segment_ids(LENGTHS, LENGTH))
    assert set(masks) == {"full_attention", "sliding_attention"}
    assert masks["sliding_attention"].sum() < masks["full_attention"].sum()
    hidden = model(input_ids, attention_mask=masks["full_attention"]).last_hidden_state
    assert difference_to_alone(model, input_ids, hidden) > 1e-2


def test_segments_and_positions():
    assert segment_ids([[2, 1], [4]], 5).tolist() == [[0, 0, 1, 2, 2], [0, 0, 0, 0, 1]]
    assert packed_position_ids([[2, 1], [4]], 5).tolist() == [[0, 1, 0, 0, 0], [0, 1, 2, 3, 0]]
    assert packed_position_ids([[2, 1]], 4, start=2).tolist() == [[2, 3, 2, 2]]
    model = modernbert()
    block = packed_attention_mask(model.config, segment_ids([[2, 1]], 4))["full_attention"][0, 0]
    assert block.tolist() == [[True, True, False, False]] * 2 + [[False, False, True, False], [False] * 3 + [True]]


def variable_length_attention(module, query, key, value, attention_mask, cu_seq_lens_q=None, **kwargs):
    """What flash attention computes, document by document, from the bounds alone."""
    assert attention_mask is None and query.shape[0] == 1
    bounds, window = cu_seq_lens_q.tolist(), kwargs.get("sliding_window")
    parts = []
    for start, end in zip(bounds, bounds[1:], strict=False):
        near = torch.arange(end - start)
        # ModernBERT counts the token itself in its window of flash attention.
        allowed = None if window is None else (near[:, None] - near).abs() < window
        part = [tensor[:, :, start:end] for tensor in (query, key, value)]
        parts.append(torch.nn.functional.scaled_dot_product_attention(*part, attn_mask=allowed))
    return torch.cat(parts, dim=2).transpose(1, 2), None


def test_flash_attention_gets_the_bounds_of_the_documents(model, input_ids):
    positions = packed_position_ids(LENGTHS, LENGTH)
    flat = flash_attention_inputs({"input_ids": input_ids, "position_ids": positions}, LENGTHS)
    assert flat["input_ids"].shape == flat["position_ids"].shape == (1, 109)
    assert flat["cu_seq_lens_q"].tolist() == flat["cu_seq_lens_k"].tolist() == [0, 20, 27, 64, 69, 109]
    assert flat["cu_seq_lens_q"].dtype == torch.int32 and flat["max_length_q"] == flat["max_length_k"] == 40
    AttentionInterface.register("variable_length", variable_length_attention)
    model.set_attn_implementation("variable_length")
    hidden = model(**flat).last_hidden_state[0]
    hidden = torch.stack([hidden[:64], torch.nn.functional.pad(hidden[64:], (0, 0, 0, 19))])
    model.set_attn_implementation("sdpa")
    assert difference_to_alone(model, input_ids, hidden) <= 1e-5


def test_attention_document_by_document(model, input_ids):
    """Also its gradients, and a padded batch of the same model."""
    positions = packed_position_ids(LENGTHS, LENGTH)
    flat = flash_attention_inputs({"input_ids": input_ids, "position_ids": positions}, LENGTHS)
    mask = (segment_ids([[20], [5]], LENGTH) == 0).long()
    padded = {"input_ids": input_ids[:, :48], "attention_mask": mask[:, :48]}
    weight = model.get_input_embeddings().weight
    found = {}
    for implementation in ("packed_sdpa", "sdpa"):
        model.set_attn_implementation(implementation)
        with torch.enable_grad():
            if implementation == "sdpa":
                masks = packed_attention_mask(model.config, segment_ids(LENGTHS, LENGTH))
                hidden = model(input_ids, position_ids=positions, attention_mask=masks).last_hidden_state
                hidden = torch.cat([hidden[0], hidden[1, :45]])
            else:
                hidden = model(**flat).last_hidden_state[0]
            (gradient,) = torch.autograd.grad(hidden.square().mean(), weight)
        found[implementation] = (hidden, gradient, model(**padded).last_hidden_state[mask[:, :48] == 1])
    for ours, stock in zip(*found.values(), strict=True):
        assert (ours - stock).abs().max() <= 1e-5


def test_attention_without_masks_is_refused(model):
    for implementation in (None, "flash_attention_2", "packed_sdpa"):
        model.config._attn_implementation_internal = implementation
        with pytest.raises(ValueError, match=f"attention implementation {implementation!r}: it must be eager, sdpa"):
            packed_attention_mask(model.config, segment_ids(LENGTHS, LENGTH))


def test_half_precision_masks_fit_the_scores(input_ids):
    model = modernbert().eval().to(torch.bfloat16)
    model.set_attn_implementation("eager")
    masks = packed_attention_mask(model.config, segment_ids(LENGTHS, LENGTH), torch.bfloat16)
    assert masks["full_attention"].dtype == torch.bfloat16
    assert model(input_ids, attention_mask=masks).last_hidden_state.isfinite().all()
