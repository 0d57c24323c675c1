import pytest
import torch
from peft import LoraConfig

from hf_matryoshka.modeling import MatryoshkaAdaptorConfig, MatryoshkaAdaptorModel
from hf_matryoshka.trainers.nested_lora import NestedLoraLinear, get_nested_lora_model, load_nested_lora


LEVELS = ("d4", "d8", "d16")


def adaptor():
    torch.manual_seed(0)
    model = MatryoshkaAdaptorModel(
        MatryoshkaAdaptorConfig(embedding_dim=16, matryoshka_dims=[4, 8, 16], kind="mlp", projection=True)
    )
    torch.nn.init.normal_(model.adaptor.down.weight)
    return model


def with_lora(**config):
    model = get_nested_lora_model(adaptor(), LoraConfig(r=3, target_modules="all-linear", **config))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture
def embeddings():
    return torch.randn(5, 16, generator=torch.Generator().manual_seed(1))


def test_the_adapter_acts_and_learns_at_every_level(embeddings):
    model, plain = with_lora(), adaptor()
    wrapped = [module for module in model.modules() if isinstance(module, NestedLoraLinear)]
    assert len(wrapped) == 3
    for level in LEVELS:
        adapted = model(embeddings, level=level).embeddings
        assert (adapted - plain(embeddings, level=level).embeddings).abs().max() > 0.01
        model.zero_grad()
        adapted[:, 0].sum().backward()
        for layer in wrapped:
            assert layer.lora_A["default"].weight.grad.abs().sum() > 0
            assert layer.base_layer.weight.grad is None


def test_merging_and_disabling_agree_at_every_level(embeddings):
    model = with_lora(use_rslora=True)
    expected = {level: model(embeddings, level=level).embeddings for level in LEVELS}
    with model.disable_adapter():
        assert torch.allclose(model(embeddings).embeddings, adaptor()(embeddings).embeddings, atol=1e-6)
    merged = model.merge_and_unload()
    assert type(merged) is MatryoshkaAdaptorModel
    for level in LEVELS:
        assert torch.allclose(merged(embeddings, level=level).embeddings, expected[level], atol=1e-5)


def test_save_and_load(embeddings, tmp_path):
    model = with_lora()
    model.save_pretrained(tmp_path)
    loaded = load_nested_lora(adaptor(), tmp_path).eval()
    for level in LEVELS:
        assert torch.equal(loaded(embeddings, level=level).embeddings, model(embeddings, level=level).embeddings)


def test_a_variant_without_a_nested_form_is_refused(embeddings):
    with pytest.raises(ValueError, match="has no nested form; use plain LoRA"):
        with_lora(use_dora=True)(embeddings)
