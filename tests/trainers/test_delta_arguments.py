"""What is checked before a training, and what falls back."""

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from .delta_runs import NAMES, batch, make, train, trainer, warned


def test_tap_layers_are_checked_and_clipped_aloud(tmp_path):
    for wrong in (-1, 4):
        with pytest.raises(ValueError, match=f"tap_layers has {wrong}, but the model has the layers 0 to 3"):
            trainer(tmp_path, enable_cscf=True, tap_layers=[0, wrong])
    messages = []
    built = warned(lambda: trainer(tmp_path, enable_cscf=True, tap_layers=[1, 2, 3]), messages)
    assert built.taps == {0: [], 1: [1, 2]}
    assert len(messages) == 1 and f"{NAMES[0]} at none, {NAMES[1]} at [1, 2]" in messages[0]
    assert torch.isfinite(built.compute_loss(built.model.train(), batch()))
    assert warned(lambda: trainer(tmp_path, enable_cscf=True).taps, messages) == {0: [0], 1: [0, 2]}
    assert len(messages) == 1


def test_fp16_falls_back_and_bf16_trains_on_a_cpu(tmp_path):
    messages = []
    built = warned(lambda: train(tmp_path, fp16=True, max_steps=1), messages)
    assert not built.args.fp16 and len(messages) == 1 and "float32" in messages[0]
    if not torch.accelerator.is_available():
        assert trainer(tmp_path, bf16=True, use_cpu=False).args.use_cpu
    # A pass without gradient must not leave its low-precision weights to those with gradient.
    built = trainer(tmp_path, bf16=True, level_sampling="random", levels_per_step=2, level_weights=[1.0, 1.0, 0.0])
    built.state.global_step = next(step for step in range(99) if built.level_sampler.sample(step, 0) == [0, 1])
    model = built.model.train()
    built.training_step(model, batch(), torch.tensor(10))
    inside = model.level_shapes(1)
    assert all((parameter.grad is not None) == (name in inside) for name, parameter in model.named_parameters())
    assert all(
        parameter.grad.any()
        for name, parameter in model.named_parameters()
        if name in inside and "key.bias" not in name
    )


def test_bad_combinations_are_named_before_any_work(tmp_path):
    small = BertForMaskedLM(
        BertConfig(vocab_size=39, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    )
    with pytest.raises(ValueError, match="teacher has a vocabulary of 39 tokens, the model one of 40"):
        trainer(tmp_path, teacher=small)
    with pytest.raises(ValueError, match="a teacher needs enable_kd=True"):
        trainer(tmp_path, teacher=make(), enable_kd=False)
    for settings in ({}, {"enable_kd": False, "enable_cscf": True}):
        with pytest.raises(ValueError, match="'ascending' trains the full budget last"):
            trainer(tmp_path, level_schedule="ascending", **settings)
    trainer(tmp_path, level_schedule="ascending", teacher=make())
    with pytest.raises(ValueError, match="all have 4 layers"):
        trainer(tmp_path, make(budgets=[[0.5, 4, 4], [1.0, 4, 4]]), enable_delta_depth=True)
    for name, value in {
        "alpha_kd": -1,
        "kd_temperature": 0,
        "depth_dropout": 2,
        "drop_path": -0.1,
        "rho_mug": -1,
    }.items():
        with pytest.raises(ValueError, match=f"{name} must"):
            trainer(tmp_path, **{name: value})
