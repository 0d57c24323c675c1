"""The Matryoshka GPT: every level is a Llama, generates like one, and is there without a copy."""

from functools import partial

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
)

from hf_matryoshka.modeling import MatryoshkaGPTConfig, MatryoshkaGPTForCausalLM, MatryoshkaGPTModel
from hf_matryoshka.modeling.nested_rope import frequency_order, stock_channels

from .gpt_models import KINDS, SIZES, make, prompts


# The tensors of a layer of GPT-2 blocks.
LAYER = [f"self_attn.{name}_proj.weight" for name in "qkvo"] + ["self_attn.o_proj.bias"]
LAYER += [f"mlp.{name}_proj.{kind}" for name in ("up", "down") for kind in ("weight", "bias")]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_every_level_is_stock_a_cut_and_a_doll(kind):
    model = make(kind)
    ids, _ = prompts()
    for level in model.config.levels:
        logits = model(ids, level=level).logits
        torch.testing.assert_close(model.cut(level)(ids).logits, logits, rtol=0, atol=1e-5)
        doll = model.doll(level)
        torch.testing.assert_close(doll(ids).logits, logits, rtol=0, atol=1e-5)
        assert {tensor.data_ptr() for tensor in doll.parameters()} <= {one.data_ptr() for one in model.parameters()}
        if kind == "groups":
            with pytest.raises(ValueError, match=f"level {level} has glue, which fold_glue takes away"):
                model.to_stock(level)
            continue
        stock = model.to_stock(level, padded=True)
        assert type(stock) is (GPT2LMHeadModel if kind == "gpt2" else LlamaForCausalLM)
        assert type(stock.config) is (GPT2Config if kind == "gpt2" else LlamaConfig)
        torch.testing.assert_close(stock(ids).logits, logits, rtol=0, atol=1e-4)
        base = model.model.to_stock(level, padded=True)
        hidden = model.model(ids, level=level).last_hidden_state
        assert type(base) is (GPT2Model if kind == "gpt2" else LlamaModel)
        torch.testing.assert_close(base(ids).last_hidden_state, hidden, rtol=0, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True, "top_k": 5}, {"use_cache": False}])
@pytest.mark.parametrize("kind", ["layers", "gpt2"])
def test_every_level_generates_what_its_stock_model_generates(kind, options):
    model = make(kind)
    ids, mask = prompts()
    for level in model.config.levels:
        found = []
        for one, own in ((model, {"level": level}), (model.doll(level), {}), (model.to_stock(level), {})):
            torch.manual_seed(0)
            found.append(one.generate(ids, attention_mask=mask, max_new_tokens=8, **options, **own))
        assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@torch.no_grad()
def test_gpt2_blocks_are_those_of_the_first_matryoshka_gpt():
    # Written out from the formulas of the training graph of evintunador/matryoshkaGPT (MatFormer+.ipynb).
    model, (ids, _) = make("gpt2", max_position_embeddings=16, rms_norm_eps=1e-5), prompts()
    state, heads = model.model.state_dict(), 4
    for width in (16, 32, 64):
        norm = partial(torch.nn.functional.layer_norm, normalized_shape=(width,))
        table, size = norm(state["embed_tokens.weight"][:, :width]), width // heads
        hidden = table[ids] + state["embed_positions.weight"][: ids.shape[1], :width]
        mask = torch.ones(ids.shape[1], ids.shape[1]).tril() == 0
        for number in range(3):
            layer = {name: state[f"layers.{number}.{name}"] for name in LAYER}
            normed, parts = norm(hidden), []
            for head in range(heads):
                # Channels of a head lie `heads` rows apart.
                query, key, value = (
                    normed @ layer[f"self_attn.{name}_proj.weight"][head::heads][:size, :width].T for name in "qkv"
                )
                scores = (query @ key.transpose(1, 2) * size**-0.5).masked_fill(mask, -torch.inf).softmax(-1)
                parts.append(scores @ value @ layer["self_attn.o_proj.weight"][:width, head::heads][:, :size].T)
            hidden = hidden + sum(parts) + layer["self_attn.o_proj.bias"][:width]
            inner = norm(hidden) @ layer["mlp.up_proj.weight"][: 4 * width, :width].T
            inner = (inner + layer["mlp.up_proj.bias"][: 4 * width]).relu()
            hidden = hidden + inner @ layer["mlp.down_proj.weight"][:width, : 4 * width].T
            hidden = hidden + layer["mlp.down_proj.bias"][:width]
        expected = norm(hidden) @ table.T
        torch.testing.assert_close(model(ids, level=f"d{width}").logits, expected, rtol=0, atol=1e-4)


def test_static_caches_prompt_lookup_and_assistants_change_nothing():
    model = make()
    ids, mask = prompts()
    plain = model.generate(ids, attention_mask=mask, max_new_tokens=8, level="d32")
    static = model.generate(ids, attention_mask=mask, max_new_tokens=8, level="d32", cache_implementation="static")
    assert torch.equal(plain, static)
    one = model.generate(ids[1:], max_new_tokens=12)
    assert torch.equal(one, model.generate(ids[1:], max_new_tokens=12, prompt_lookup_num_tokens=3))
    assert torch.equal(one, model.generate(ids[1:], max_new_tokens=12, assistant_model=model.doll("d16")))


def test_what_a_doll_learns_its_model_knows():
    model = make()
    ids, _ = prompts()
    doll = model.doll("d32").train()
    doll(ids, labels=ids).loss.backward()
    weight = model.model.layers[0].mlp.gate_proj.weight
    assert weight.grad[:128, :32].abs().min() > 0 and weight.grad[128:].abs().max() == 0
    assert weight.grad[:, 32:].abs().max() == 0
    model.activation_checkpointing_enable()
    model.train().zero_grad()
    model(ids, labels=ids, level="d32", use_cache=False).loss.backward()
    recomputed = model.model.layers[0].mlp.gate_proj.weight.grad
    model.zero_grad()
    model.activation_checkpointing_disable()
    model(ids, labels=ids, level="d32").loss.backward()
    torch.testing.assert_close(model.model.layers[0].mlp.gate_proj.weight.grad, recomputed)


def test_eager_attention_and_embeddings_as_input():
    model, eager = make(), make(attn_implementation="eager")
    ids, mask = prompts()
    torch.testing.assert_close(
        eager(ids, mask, level=0).logits[1], model(ids, mask, level=0).logits[1], rtol=0, atol=1e-5
    )
    embeddings = model.get_input_embeddings()(ids)
    torch.testing.assert_close(model(inputs_embeds=embeddings, level=1).logits, model(ids, level=1).logits)
    outputs = model(ids, level=1, output_hidden_states=True, output_attentions=False)
    assert [state.shape[-1] for state in outputs.hidden_states] == [32] * 4
    torch.testing.assert_close(model(ids, logits_to_keep=1).logits, model(ids).logits[:, -1:])


def test_saved_and_loaded(tmp_path):
    model = make("heads")
    ids, _ = prompts()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is MatryoshkaGPTForCausalLM and torch.equal(loaded(ids).logits, model(ids).logits)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    decoder = MatryoshkaGPTModel.from_pretrained(tmp_path, level="d16")
    torch.testing.assert_close(decoder(ids).last_hidden_state, model.model(ids, level=0).last_hidden_state)


@pytest.mark.parametrize("pairs", [1, 2, 6, 8, 12, 32])
def test_leading_channels_have_the_frequencies_of_a_smaller_head(pairs):
    order = frequency_order(pairs, "nested")
    assert sorted(order) == list(range(pairs))
    ratio = 1
    while pairs % (2 * ratio) == 0:
        ratio *= 2
        own = order[: pairs // ratio]
        assert sorted(own) == list(range(0, pairs, ratio))
        # In the order that the smaller head has by itself.
        assert [index // ratio for index in own] == frequency_order(pairs // ratio, "nested")
    if pairs == 8:
        assert order == [0, 4, 2, 6, 1, 5, 3, 7]
    assert sorted(stock_channels(pairs, "nested")) == list(range(2 * pairs))


def test_cost_counts_what_a_level_reads():
    model = make("layers")
    for level in model.config.levels:
        stock = model.to_stock(level)
        assert model.cost(level)["parameters"] == sum(one.numel() for one in stock.parameters())
    small, large = model.cost(0), model.cost()
    assert small["macs"] < large["macs"] and large["bytes_per_token"] == 4 * 2 * 3 * 2 * 16
    assert make("output").cost(0)["macs"] == make("output").cost()["macs"] - 48 * 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"doll_sizes": [32, 16, 64]}, "doll_sizes must increase"),
        ({"doll_sizes": [16, 32]}, "the last of doll_sizes must be hidden_size 64, but is 32"),
        ({"doll_sizes": [24, 64]}, "doll size 24 of 64 does not fit heads of 16 channels in pairs, halved"),
        ({"doll_sizes": [4, 64], "rope_order": "prefix"}, "doll size 4 of 64 does not fit heads of 16 channels"),
        ({"doll_sizes": [16, 64], "nested_heads": "heads"}, "does not fit 4 heads and 2 of keys and values"),
        ({"doll_layers": [1, 2, 2]}, "doll_layers must not decrease and end with all 3, but are"),
        ({"doll_layers": [1, 3]}, "doll_layers has 2 entries for 3 doll_sizes"),
        ({"layer_order": [0, 1]}, "must have each of the layers 0 to 2 once"),
        ({"num_key_value_heads": 3}, "must be a multiple of num_key_value_heads 3"),
        ({"head_dim": 15}, "head_dim 15 must be even"),
        ({"nesting": "none"}, "nesting 'none' does not exist; choose one of full, output"),
        (
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            "'dynamic' cannot be nested",
        ),
        ({"rope_order": "random"}, "rope_order 'random' does not exist"),
        ({"norm_groups": 3}, "norm_groups 3 must divide hidden_size 64"),
        ({"norm_groups": 2}, "doll size 16 cuts a norm group of 32 channels"),
        ({"blocks": "bert"}, "blocks 'bert' does not exist; choose one of llama, gpt2"),
        ({"blocks": "gpt2"}, "GPT-2 blocks have num_key_value_heads 4, but it is 2; leave it out"),
    ],
)
def test_sizes_that_do_not_nest_are_refused(options, message):
    with pytest.raises(Exception, match=message):
        MatryoshkaGPTConfig(**{**SIZES, **options})


def test_bad_calls_are_one_sentence(tmp_path):
    model = make()
    ids, _ = prompts()
    doll = model.doll("d16")
    with pytest.raises(
        ValueError, match="level given twice: this is the doll of level d16, and the call asks for d64"
    ):
        doll(ids, level="d64")
    with pytest.raises(ValueError, match="level 'd20' does not exist; choose one of d16, d32, d64"):
        model.generate(ids, level="d20", max_new_tokens=1)
    with pytest.raises(ValueError, match="save what cut"):
        doll.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model.model()
    with pytest.raises(ValueError, match="reads 16 of 64 channels"):
        make("output").to_stock("d16")
