"""Decoders side by side inside decoders: every doll is a stock Llama."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from hf_matryoshka.modeling import FractalFormerConfig, FractalFormerForCausalLM

from .gpt_models import prompts


SIZES = {"vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0}
SIZES |= {"num_key_value_heads": 4, "max_position_embeddings": 64, "eos_token_id": None, "initializer_range": 0.2}
KINDS = {
    "two": {},
    "biases": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
    "grouped": {"children": 2, "depth": 2, "num_key_value_heads": 2},
    "four": {"children": 4, "depth": 2, "intermediate_size": 96},
}


def make(kind="two", **options):
    config = FractalFormerConfig(**{**SIZES, **KINDS[kind], **options})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = FractalFormerForCausalLM(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def test_dolls_are_named_by_depth_and_place():
    config = make().config
    assert config.levels == ("L2.0", "L2.1", "L2.2", "L2.3", "L1.0", "L1.1", "L0.0")
    assert config.place("L2.3") == (2, 3) and config.level_sizes("L2.3").slot == 3
    assert [config.level_sizes(level).hidden for level in ("L2.1", "L1.1", None)] == [16, 32, 64]
    assert config.cut("L1.1").levels == ("L1.0", "L1.1", "L0.0") and config.cut("L2.1").levels == ("L0.0",)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_every_doll_is_a_llama_and_a_cut(kind):
    model = make(kind)
    ids, mask = prompts()
    seen = []
    for level in model.config.levels:
        logits = model(ids, level=level).logits
        stock, small = model.to_stock(level), model.cut(level)
        assert type(stock) is LlamaForCausalLM
        torch.testing.assert_close(stock(ids).logits, logits, rtol=0, atol=1e-4)
        torch.testing.assert_close(small(ids).logits, logits, rtol=0, atol=1e-5)
        assert model.cost(level)["parameters"] == sum(one.numel() for one in small.parameters())
        seen.append(logits)
        if small.config.depth > 1:
            # The dolls inside a doll are those of the whole.
            depth, place = model.config.place(level)
            child = model(ids, level=f"L{depth + 1}.{place * model.config.children + 1}").logits
            torch.testing.assert_close(small(ids, level="L1.1").logits, child, rtol=0, atol=1e-5)
        options = {"attention_mask": mask, "max_new_tokens": 6}
        assert torch.equal(model.generate(ids, level=level, **options), stock.generate(ids, **options))
    assert all((one - other).abs().max() > 0.01 for n, one in enumerate(seen) for other in seen[:n])


def test_a_doll_trains_its_own_part_alone():
    model = make(tie_word_embeddings=False)
    ids, _ = prompts()
    for level in ("L2.2", "L1.1", "L0.0"):
        model.zero_grad()
        model(ids, labels=ids, level=level, use_cache=False).loss.backward()
        sizes = model.config.level_sizes(level)
        start, width = sizes.slot * sizes.hidden, sizes.hidden
        for name, axes in (("self_attn.q_proj", (0, 1)), ("mlp.down_proj", (0,)), ("input_layernorm", (0,))):
            gradient = model.get_parameter(f"model.layers.0.{name}.weight").grad
            for axis in axes:
                inside = gradient.narrow(axis, start, width).abs().sum()
                assert inside > 0 and inside == pytest.approx(gradient.abs().sum().item(), rel=1e-5)


@torch.no_grad()
def test_a_text_is_routed_to_the_doll_that_finds_it_likely():
    model = make()
    ids, mask = prompts()
    names, likelihoods = model.route(ids, mask)
    assert likelihoods.shape == (2, 4) and names == [f"L2.{place}" for place in likelihoods.argmax(1).tolist()]
    for row in range(2):
        text = ids[row, mask[row].bool()][None]
        for place in range(4):
            loss = model(text, labels=text, level=f"L2.{place}").loss
            torch.testing.assert_close(likelihoods[row, place], -loss, rtol=0, atol=1e-4)
    assert model.route(ids, mask, depth=1)[1].shape == (2, 2)
    with pytest.raises(ValueError, match="depth 3 does not exist; give one from 0 to 2"):
        model.route(ids, depth=3)
    with pytest.raises(ValueError, match="a text has fewer than two tokens"):
        model.route(ids[:, :1])


@torch.no_grad()
def test_saving_and_drafting(tmp_path):
    model = make("biases")
    ids, _ = prompts()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(loaded) is FractalFormerForCausalLM
    torch.testing.assert_close(loaded(ids, level="L2.1").logits, model(ids, level="L2.1").logits, rtol=0, atol=0)
    plain = model.generate(ids[1:], max_new_tokens=12)
    assert torch.equal(plain, model.generate(ids[1:], max_new_tokens=12, draft_level="L1.1"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"children": 1}, "children must be at least 2 and depth from 1 to 32, but are 1 and 3"),
        ({"depth": 10**30}, "depth from 1 to 32, but are 2 and 1000"),
        ({"depth": 4}, "num_attention_heads 4 cannot be divided among the 8 smallest dolls"),
        ({"hidden_size": 66, "head_dim": 16}, "hidden_size 66 cannot be divided among the 4 smallest dolls"),
        ({"num_key_value_heads": 2}, "num_key_value_heads 2 cannot be divided among the 4"),
        ({"norm_groups": 2}, "a FractalFormer has norm_groups 1, but it is 2"),
        ({"doll_layers": [1, 1, 2]}, "a FractalFormer has doll_layers None"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(options, message):
    with pytest.raises(Exception, match=message):
        FractalFormerConfig(**{**SIZES, **options})


def test_bad_calls_are_one_sentence():
    model = make()
    with pytest.raises(ValueError, match="level 'L3.0' does not exist; choose one of L2.0"):
        model(torch.ones(1, 3, dtype=torch.long), level="L3.0")
    with pytest.raises(ValueError, match="doll L1.0 of a FractalFormer is no view; call the model with level='L1.0'"):
        model.doll("L1.0")
