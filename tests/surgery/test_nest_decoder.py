"""A Llama becomes a Matryoshka GPT that computes the same, its best channels first."""

import pytest
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from hf_matryoshka.surgery.decoder_importance import measure_decoder_importance
from hf_matryoshka.surgery.nest_decoder import nest_decoder


SIZES = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2, "eos_token_id": None}


def llama(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**SIZES | options)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def batches():
    ids = torch.randint(3, 60, (3, 10), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, 6:] = 0
    return [{"input_ids": ids, "attention_mask": mask}]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("nested_heads", ["head_dim", "heads"])
@torch.no_grad()
def test_at_its_full_size_it_computes_the_same(nested_heads, tied):
    model = llama(tie_word_embeddings=tied, attention_bias=True, mlp_bias=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    importance = measure_decoder_importance(model, batches())
    ids = batches()[0]["input_ids"]
    for scores in (None, importance):
        nested = nest_decoder(model, [16, 32], scores, nested_heads=nested_heads)
        torch.testing.assert_close(nested(ids).logits, model(ids).logits, rtol=0, atol=1e-5)
        assert nested(ids, level="d16").logits.shape == (3, 10, 60)
        back = nested.to_stock()
        torch.testing.assert_close(back(ids).logits, model(ids).logits, rtol=0, atol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    # Without sorting the way back gives the very weights.
    again = nest_decoder(model, [16, 32], nested_heads=nested_heads).to_stock().state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in again.items())


@torch.no_grad()
def test_what_adds_nothing_comes_last():
    model = llama(tie_word_embeddings=False)
    dead = {"residual": [3, 17], "neurons": [0, 5, 40], "value": 6}
    for layer in model.model.layers:
        for reader in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
            reader.weight[:, dead["residual"]] = 0
        for reader in (layer.mlp.gate_proj, layer.mlp.up_proj):
            reader.weight[:, dead["residual"]] = 0
        layer.mlp.down_proj.weight[:, dead["neurons"]] = 0
        # Channel 6 of the values of the second key-value head, which heads 2 and 3 read.
        layer.self_attn.o_proj.weight[:, [16 + dead["value"], 24 + dead["value"]]] = 0
    model.lm_head.weight[:, dead["residual"]] = 0
    importance = measure_decoder_importance(model, batches())
    assert sorted(importance.residual.argsort()[:2].tolist()) == dead["residual"]
    for scores in importance.neurons:
        assert sorted(scores.argsort()[:3].tolist()) == dead["neurons"]
    for scores in importance.values:
        assert scores.shape == (2, 8) and scores.argmin() == 8 + dead["value"] and scores.min() == 0
    nested = nest_decoder(model, [16, 32], importance)
    for layer in nested.model.layers:
        assert layer.mlp.down_proj.weight[:, -3:].abs().max() == 0
        assert layer.mlp.gate_proj.weight[:, -2:].abs().max() == 0
        # By channel and then by head: the last channel of heads 2 and 3.
        assert layer.self_attn.o_proj.weight[:, -2:].abs().max() == 0
    # Half of the neurons and the channels that matter are a better half than the other one.
    ids = batches()[0]["input_ids"]
    full = model(ids).logits.log_softmax(-1)
    kept = [
        torch.nn.functional.kl_div(
            one(ids, level=0).logits.log_softmax(-1), full, reduction="batchmean", log_target=True
        ).item()
        for one in (nested, nest_decoder(model, [16, 32]))
    ]
    assert kept[0] < kept[1]


@torch.no_grad()
def test_padding_counts_for_nothing():
    model, (batch,) = llama(), batches()
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    changed["input_ids"][0, 6:] = 59
    first, second = (measure_decoder_importance(model, [one]) for one in (batch, changed))
    torch.testing.assert_close(first.residual, second.residual)
    whole = {"input_ids": batch["input_ids"][:, :6]}
    masked = {**whole, "attention_mask": torch.ones_like(whole["input_ids"])}
    first, second = (measure_decoder_importance(model, [one]) for one in (whole, masked))
    torch.testing.assert_close(first.residual, second.residual)


def test_bad_input_is_refused():
    bert = BertModel(BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    with pytest.raises(ValueError, match="BertModel is not Llama-shaped; give a LlamaForCausalLM"):
        nest_decoder(bert, [4, 8])
    model = llama()
    with pytest.raises(Exception, match="doll size 12 of 32 does not fit heads of 8 channels"):
        nest_decoder(model, [12, 32])
    importance = measure_decoder_importance(model, batches())
    with pytest.raises(ValueError, match=r"importance has neurons of shape \(2, 48\), but the model has \(2, 40\)"):
        nest_decoder(llama(intermediate_size=40), [16, 32], importance)
    with pytest.raises(ValueError, match="batches hold no token"):
        measure_decoder_importance(model, [])
