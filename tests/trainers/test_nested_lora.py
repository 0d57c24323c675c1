"""LoRA at every level, on adaptors and on an encoder that is nested on two axes."""

import copy

import pytest
import torch
from peft import LoraConfig, TaskType
from torch import nn
from torch.nn import functional as F
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from hf_matryoshka.modeling import MatryoshkaAdaptorConfig, MatryoshkaAdaptorModel
from hf_matryoshka.modeling.nested_layers import NestedEmbedding
from hf_matryoshka.trainers.nested_lora import (
    NestedLoraEmbedding,
    NestedLoraLinear,
    get_nested_lora_model,
    load_nested_lora,
)

from ..modeling import gpt_models


CODE = {
    "TinyNestedModel": "modeling_tiny_nested.TinyNestedModel",
    "mlp": "modeling_matryoshka_adaptor.MatryoshkaAdaptorModel",
}


def adaptor(kind="mlp"):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MatryoshkaAdaptorModel(
            MatryoshkaAdaptorConfig(embedding_dim=16, matryoshka_dims=[4, 8, 16], kind=kind, projection=kind == "mlp")
        )
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(params=["mlp", "linear", "TinyNestedModel", "TinyNestedForMaskedLM"])
def plain(request, tiny_nested):
    """Makes the same model on each call."""
    if request.param.startswith("Tiny"):
        return lambda: tiny_nested.make(request.param)
    return lambda: adaptor(request.param).eval()


def with_lora(model, trained=True, **config):
    torch.manual_seed(3)
    model = get_nested_lora_model(model, LoraConfig(**{"r": 3, "target_modules": "all-linear", **config}))
    for name, parameter in model.named_parameters():
        if trained and ("lora_B" in name or "lora_embedding" in name):
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def run(model, level=None):
    generator = torch.Generator().manual_seed(1)
    if model.config.model_type == "matryoshka_adaptor":
        return model(torch.randn(5, 16, generator=generator), level=level)[0]
    return model(torch.randint(1, 99, (2, 6), generator=generator), level=level)[0]


def outputs(model):
    with torch.no_grad():
        return {level: run(model, level) for level in model.config.levels}


def test_the_adapter_acts_and_learns_at_every_level(plain):
    model, before = with_lora(plain()), outputs(plain())
    wrapped = [module for module in model.modules() if isinstance(module, NestedLoraLinear)]
    assert wrapped
    for level in model.config.levels:
        adapted = run(model, level)
        assert (adapted - before[level]).abs().max() > 0.01
        model.zero_grad()
        adapted.flatten(0, -2)[:, 0].sum().backward()
        # Layers that the level has not got learn nothing from it.
        shapes = model.get_base_model().config.cut(level)
        depth = getattr(shapes, "num_hidden_layers", None)
        for name, module in model.named_modules():
            if isinstance(module, NestedLoraLinear):
                inside = depth is None or any(f"layer.{index}." in name for index in range(depth))
                gradient = module.lora_A["default"].weight.grad
                assert (gradient is not None and gradient.abs().sum() > 0) == inside
                assert module.base_layer.weight.grad is None


def test_training_one_level_moves_it_and_the_larger_ones(plain):
    model = with_lora(plain(), trained=False)
    before, optimizer = outputs(model), torch.optim.SGD(model.parameters(), lr=1.0)
    for level, value in before.items():
        torch.testing.assert_close(value, outputs(plain())[level], atol=0, rtol=0)
    torch.manual_seed(4)
    for _ in range(2):
        optimizer.zero_grad()
        output = run(model, 0)
        (output * torch.randn_like(output)).sum().backward()
        optimizer.step()
    for level, value in outputs(model).items():
        assert (value - before[level]).abs().max() > 1e-4


def test_merging_and_disabling_agree_at_every_level_and_the_merged_model_is_nested(plain, tmp_path):
    model = with_lora(plain(), use_rslora=True)
    expected = outputs(model)
    with model.disable_adapter():
        for level, value in outputs(plain()).items():
            torch.testing.assert_close(run(model, level), value, atol=1e-6, rtol=0)
    merged = model.merge_and_unload()
    assert type(merged) is type(plain())
    merged.save_pretrained(tmp_path, shard_by_level=True)
    for level, value in expected.items():
        torch.testing.assert_close(run(merged, level), value, atol=1e-5, rtol=0)
        torch.testing.assert_close(run(merged.cut(level)), value, atol=1e-5, rtol=0)
        loaded = type(merged).from_pretrained(tmp_path, level=level)
        torch.testing.assert_close(run(loaded), run(merged.cut(level)), atol=0, rtol=0)


def test_a_model_with_adapters_is_not_cut(plain):
    with pytest.raises(ValueError, match="merge them first"):
        with_lora(plain()).get_base_model().cut(0)


def test_save_and_load(plain, tmp_path):
    model = with_lora(plain())
    model.save_pretrained(tmp_path)
    loaded = load_nested_lora(plain(), tmp_path).eval()
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    for level, value in outputs(model).items():
        torch.testing.assert_close(run(loaded, level), value, atol=0, rtol=0)
    assert load_nested_lora(plain(), tmp_path, is_trainable=True).get_nb_trainable_parameters()[0] > 0


@pytest.mark.parametrize("name", list(CODE))
def test_a_model_with_the_code_of_its_repo(name, tiny_nested, tmp_path):
    original = adaptor() if name == "mlp" else tiny_nested.make(name)
    original.save_pretrained(tmp_path / "repo")
    remote_class = get_class_from_dynamic_module(CODE[name], tmp_path / "repo")
    assert remote_class is not type(original)
    expected = with_lora(original)
    model = with_lora(remote_class.from_pretrained(tmp_path / "repo"))
    for level, value in outputs(expected).items():
        torch.testing.assert_close(run(model, level), value, atol=0, rtol=0)
    model.save_pretrained(tmp_path / "lora")
    loaded = load_nested_lora(remote_class.from_pretrained(tmp_path / "repo"), tmp_path / "lora")
    torch.testing.assert_close(run(loaded, 0), run(model, 0), atol=0, rtol=0)


def test_a_head_that_is_trained_whole(tiny_nested, tmp_path):
    name = "TinyNestedForSequenceClassification"
    model = with_lora(tiny_nested.make(name), task_type=TaskType.SEQ_CLS, modules_to_save=["classifier"])
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any("classifier.modules_to_save" in name for name in trained)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    ids = torch.tensor([[3, 9, 27], [4, 5, 6]])
    for level in model.config.levels:
        before = copy.deepcopy(model.base_model.model.classifier.modules_to_save["default"].weight)
        optimizer.zero_grad()
        model(ids, labels=torch.tensor([0, 1]), level=level).loss.backward()
        optimizer.step()
        assert not torch.equal(model.base_model.model.classifier.modules_to_save["default"].weight, before)
    model.save_pretrained(tmp_path)
    loaded = load_nested_lora(tiny_nested.make(name), tmp_path)
    expected = outputs(model)
    merged = model.merge_and_unload()
    for level, value in expected.items():
        torch.testing.assert_close(run(loaded, level), value, atol=0, rtol=0)
        torch.testing.assert_close(run(merged.cut(level)), value, atol=1e-5, rtol=0)


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = NestedEmbedding(9, 6, padding_idx=0)

    def forward(self, ids, columns=None):
        return self.table(ids, columns)


def test_a_nested_embedding():
    torch.manual_seed(0)
    table = Table()
    original = copy.deepcopy(table)
    model = with_lora(table, target_modules=["table"])
    assert isinstance(model.base_model.model.table, NestedLoraEmbedding)
    ids = torch.tensor([[1, 3, 0]])
    update = model.base_model.model.table.get_delta_weight("default")
    for columns in (2, 4, None):
        expected = F.embedding(ids, (original.table.weight + update)[:, :columns])
        torch.testing.assert_close(model(ids, columns), expected, atol=1e-6, rtol=0)
        model.zero_grad()
        model(ids, columns).sum().backward()
        gradient = model.base_model.model.table.lora_embedding_B["default"].grad
        assert gradient[:columns].abs().sum() > 0 and gradient[6 if columns is None else columns :].abs().sum() == 0
        with model.disable_adapter():
            assert torch.equal(model(ids, columns), original(ids, columns))
    expected = {columns: model(ids, columns) for columns in (2, None)}
    merged = model.merge_and_unload()
    for columns, value in expected.items():
        torch.testing.assert_close(merged(ids, columns), value, atol=1e-6, rtol=0)


def test_the_bias_of_an_adapter_acts_at_every_level():
    model = with_lora(adaptor(), lora_bias=True, target_modules=["up", "down"])
    run(model, "d4").sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    expected = outputs(model)
    merged = model.merge_and_unload()
    for level, value in expected.items():
        torch.testing.assert_close(run(merged, level), value, atol=1e-5, rtol=0)


def test_a_variant_without_a_nested_form_is_refused():
    model = with_lora(adaptor(), use_dora=True)
    with pytest.raises(ValueError, match="has no nested form; use plain LoRA"):
        run(model)
    with pytest.raises(ValueError, match="has no nested form; use plain LoRA"):
        with_lora(Table(), target_modules=["table"], use_dora=True)(torch.tensor([[1]]))


@pytest.mark.parametrize(("target", "layer"), [("lm_head", "NormedHead"), ("embed_tokens", "NormedEmbedding")])
def test_layers_that_norm_their_weights_are_refused(target, layer):
    config = LoraConfig(r=3, target_modules=[target])
    with pytest.raises(
        ValueError, match=f"LoRA cannot adapt {layer}, which norms its weights; leave it out of target"
    ):
        get_nested_lora_model(gpt_models.make("gpt2"), config)
    get_nested_lora_model(gpt_models.make("gpt2"), LoraConfig(r=3, target_modules="all-linear"))
